#include "device/cuda/driver.h"

#include <dlfcn.h>
#include <fmt/format.h>

namespace tandem::cuda {
namespace {

constexpr int kFirstSm = 80;

std::string words(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

}  // namespace

std::string driver_problem(int needed) {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!driver)
    return fmt::format("the NVIDIA driver is missing: the loader finds no libcuda.so.1; install one that supports CUDA {}", needed / 1000);
  int version = 0;
  if (auto* ask = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDriverGetVersion"))) ask(&version);
  return fmt::format("the NVIDIA driver is too old: it supports CUDA up to {}, this program needs {}; install a newer driver",
                     words(version), words(needed / 1000 * 1000));
}

std::string kernels_problem(int sm) {
  return fmt::format("the GPU is sm_{}, this program was built for {}; {}", sm, TANDEM_KERNELS_FOR,
                     sm < kFirstSm ? "GPUs before compute capability 8.0 are not supported"
                                   : fmt::format("build it with -DTANDEM_CUDA_ARCHITECTURES={}-real", sm));
}

std::string text_problem(int sm, const char* reason) {
  return fmt::format("there is no machine code for the GPU, sm_{}, and the driver did not compile the text that there is: {}", sm, reason);
}

}  // namespace tandem::cuda
