#include "comm/nccl/progress.h"

namespace tandem::nccl {
namespace {

// None is lost where two streams count at once.
__global__ void count(std::uint64_t* counter, volatile std::uint64_t* word) {
  *word = atomicAdd(reinterpret_cast<unsigned long long*>(counter), 1ULL) + 1;
}

}  // namespace

void launch_progress(std::uint64_t* counter, std::uint64_t* word, cudaStream_t stream) { count<<<1, 1, 0, stream>>>(counter, word); }

}  // namespace tandem::nccl
