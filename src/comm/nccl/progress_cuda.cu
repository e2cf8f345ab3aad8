#include "comm/nccl/progress.h"
#include "device/cuda/dependent.cuh"

namespace tandem::nccl {
namespace {

// None is lost where two streams count at once.
__global__ void count(std::uint64_t* counter, volatile std::uint64_t* word) {
  *word = atomicAdd(reinterpret_cast<unsigned long long*>(counter), 1ULL) + 1;
}

}  // namespace

void launch_progress(std::uint64_t* counter, std::uint64_t* word, cudaStream_t stream) {
  cuda::start_kernel(stream, count, dim3(1), dim3(1), 0, counter, word);
}

}  // namespace tandem::nccl
