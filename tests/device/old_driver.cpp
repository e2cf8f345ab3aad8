// Stands in for libcuda.so.1 of a driver that supports CUDA 11.4 only.
extern "C" {
int cuDriverGetVersion(int* version) {
  *version = 11040;
  return 0;
}
int cuInit(unsigned) { return 0; }
}
