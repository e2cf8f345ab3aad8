#include "gpu/peer_kernels_cuda.h"

#include <cuda_bf16.h>

#include "device/cuda/dependent.cuh"
#include "device/cuda/runtime.h"
#include "gpu/clock_cuda.cuh"

namespace tandem::testing {
namespace {

__device__ unsigned mixed(unsigned a, unsigned b, unsigned c) {
  unsigned x = a * 0x9e3779b9u ^ b * 0x85ebca6bu ^ c * 0xc2b2ae35u;
  x ^= x >> 15;
  x *= 0x2c1b3c6du;
  return x ^ x >> 13;
}
// −8 … 7: eight of them sum up to what bf16 holds exactly.
__device__ int operand(std::int64_t i, int rank, unsigned turn) {
  return static_cast<int>(mixed(static_cast<unsigned>(i), static_cast<unsigned>(rank), turn) % 16) - 8;
}

template <typename T>
__device__ T as(int x) {
  return static_cast<T>(static_cast<float>(x));
}
template <typename T>
__device__ float number(T x) {
  return static_cast<float>(x);
}

template <typename T>
__global__ void fill_kernel(T* to, std::int64_t count, int rank, const std::uint32_t* turn) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += std::int64_t{gridDim.x} * blockDim.x)
    to[i] = as<T>(operand(i, rank, *turn));
}

template <typename T>
__global__ void compare_sum_kernel(const T* got, std::int64_t count, int ranks, const std::uint32_t* turn, unsigned long long* errors) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += std::int64_t{gridDim.x} * blockDim.x) {
    int sum = 0;
    for (int r = 0; r < ranks; ++r) sum += operand(i, r, *turn);
    if (number(got[i]) != static_cast<float>(sum)) atomicAdd(errors, 1ull);
  }
}

template <typename T>
__global__ void compare_gathered_kernel(const T* got, std::int64_t count, int ranks, const std::uint32_t* turn,
                                        unsigned long long* errors) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count * ranks; i += std::int64_t{gridDim.x} * blockDim.x)
    if (number(got[i]) != static_cast<float>(operand(i % count, static_cast<int>(i / count), *turn))) atomicAdd(errors, 1ull);
}

__global__ void next_turn_kernel(std::uint32_t* turn) { ++*turn; }

__global__ void pause_kernel(int rank, const std::uint32_t* turn, unsigned most_ns) {
  const unsigned long long end = now_ns() + mixed(77, static_cast<unsigned>(rank), *turn) % (most_ns + 1);
  while (now_ns() < end) {
  }
}

constexpr unsigned kBlocks = 32, kThreads = 256;

template <typename Kernel, typename... Arguments>
void start(Kernel* kernel, cudaStream_t stream, Arguments... arguments) {
  cuda::start_kernel(stream, kernel, dim3(kBlocks), dim3(kThreads), 0, arguments...);
}

}  // namespace

template <typename T>
void fill(T* to, std::int64_t count, int rank, const std::uint32_t* turn, cudaStream_t stream) {
  start(fill_kernel<T>, stream, to, count, rank, turn);
}
template <typename T>
void compare_sum(const T* got, std::int64_t count, int ranks, const std::uint32_t* turn, unsigned long long* errors, cudaStream_t stream) {
  start(compare_sum_kernel<T>, stream, got, count, ranks, turn, errors);
}
template <typename T>
void compare_gathered(const T* got, std::int64_t count, int ranks, const std::uint32_t* turn, unsigned long long* errors,
                      cudaStream_t stream) {
  start(compare_gathered_kernel<T>, stream, got, count, ranks, turn, errors);
}
void next_turn(std::uint32_t* turn, cudaStream_t stream) { cuda::start_kernel(stream, next_turn_kernel, dim3(1), dim3(1), 0, turn); }
void pause(int rank, const std::uint32_t* turn, unsigned most_ns, cudaStream_t stream) {
  cuda::start_kernel(stream, pause_kernel, dim3(1), dim3(1), 0, rank, turn, most_ns);
}

void load_kernels() {
  const auto load = [](auto... kernels) {
    cudaFuncAttributes unused{};
    for (const void* kernel : {reinterpret_cast<const void*>(kernels)...}) cuda::check(cudaFuncGetAttributes(&unused, kernel), "loading");
  };
  load(fill_kernel<float>, fill_kernel<__nv_bfloat16>, fill_kernel<std::int32_t>, compare_sum_kernel<float>,
       compare_sum_kernel<__nv_bfloat16>, compare_sum_kernel<std::int32_t>, compare_gathered_kernel<float>,
       compare_gathered_kernel<__nv_bfloat16>, compare_gathered_kernel<std::int32_t>, next_turn_kernel, pause_kernel);
}

#define TANDEM_TEST_TYPE(T)                                                                                           \
  template void fill<T>(T*, std::int64_t, int, const std::uint32_t*, cudaStream_t);                                   \
  template void compare_sum<T>(const T*, std::int64_t, int, const std::uint32_t*, unsigned long long*, cudaStream_t); \
  template void compare_gathered<T>(const T*, std::int64_t, int, const std::uint32_t*, unsigned long long*, cudaStream_t);
TANDEM_TEST_TYPE(float)
TANDEM_TEST_TYPE(__nv_bfloat16)
TANDEM_TEST_TYPE(std::int32_t)

}  // namespace tandem::testing
