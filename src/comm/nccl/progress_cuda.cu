#include "comm/nccl/progress.h"
#include "device/cuda/runtime.h"

namespace tandem::nccl {
namespace {

// None is lost where two streams count at once.
__global__ void count(std::uint64_t* counter, volatile std::uint64_t* word) {
  *word = atomicAdd(reinterpret_cast<unsigned long long*>(counter), 1ULL) + 1;
}

}  // namespace

void launch_progress(std::uint64_t* counter, std::uint64_t* word, cudaStream_t stream) { count<<<1, 1, 0, stream>>>(counter, word); }

cudaGraphNode_t add_progress(std::uint64_t* counter, std::uint64_t* word, cudaGraph_t graph, std::span<const cudaGraphNode_t> after) {
  void* arguments[] = {&counter, &word};
  cudaKernelNodeParams kernel{};
  kernel.func = reinterpret_cast<void*>(&count);
  kernel.gridDim = kernel.blockDim = dim3(1);
  kernel.kernelParams = arguments;
  cudaGraphNode_t node = nullptr;
  cuda::check(cudaGraphAddKernelNode(&node, graph, after.data(), after.size(), &kernel), "counting a collective in a graph");
  return node;
}

}  // namespace tandem::nccl
