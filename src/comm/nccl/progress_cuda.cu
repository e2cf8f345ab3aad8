#include "comm/nccl/progress.h"

namespace tandem::nccl {
namespace {

__global__ void count(std::uint64_t* counter, volatile std::uint64_t* word) {
  const std::uint64_t next = *counter + 1;
  *counter = next;
  *word = next;
}

}  // namespace

void launch_progress(std::uint64_t* counter, std::uint64_t* word, cudaStream_t stream) { count<<<1, 1, 0, stream>>>(counter, word); }

}  // namespace tandem::nccl
