// How a kernel is given to a stream. For files that compile with and without nvcc.
#pragma once

#include <cuda_runtime.h>

namespace tandem::cuda {

struct Start {
  cudaStream_t stream;
  bool early = false;  // before what was given to the stream before has ended: by the rules of dependent.cuh only

  Start(cudaStream_t in, bool is_early = false) : stream(in), early(is_early) {}
};

// Calls `work` with the configuration of such a launch.
template <typename Work>
cudaError_t with_configuration(const Start& start, dim3 grid, dim3 block, std::size_t shared, const Work& work) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t configuration{};
  configuration.gridDim = grid;
  configuration.blockDim = block;
  configuration.dynamicSmemBytes = shared;
  configuration.stream = start.stream;
  configuration.attrs = &early;
  configuration.numAttrs = start.early ? 1 : 0;
  return work(&configuration);
}

}  // namespace tandem::cuda
