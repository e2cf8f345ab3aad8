#include "device/cuda/dependent.cuh"
#include "ops/shape/iota_cuda.h"
#include "ops/types_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void iota(T* out, std::int64_t count, std::int64_t offset) {
  begin_dependent();
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) out[i] = static_cast<T>(offset + i);
}

}  // namespace

void launch_iota(DType dtype, void* out, std::int64_t count, std::int64_t offset, const Start& start) {
  with_integer_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    start_kernel(start, iota<T>, grid_for(count, kThreads), kThreads, 0, static_cast<T*>(out), count, offset);
  });
}

}  // namespace tandem::cuda
