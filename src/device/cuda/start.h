// How a kernel is given to a stream. For files that compile with and without nvcc.
#pragma once

#include <cuda_runtime.h>

namespace tandem::cuda {

struct Start {
  cudaStream_t stream;
  bool early = false;    // before what was given to the stream before has ended: by the rules of dependent.cuh only
  unsigned cluster = 1;  // blocks of a thread-block cluster, neighbours in x; more than one from compute capability 9.0 on

  Start(cudaStream_t in, bool is_early = false) : stream(in), early(is_early) {}
};

// Calls `work` with the configuration of such a launch.
template <typename Work>
cudaError_t with_configuration(const Start& start, dim3 grid, dim3 block, std::size_t shared, const Work& work) {
  cudaLaunchAttribute attributes[2]{};
  unsigned count = 0;
  if (start.early) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (start.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {start.cluster, 1, 1};
  }
  cudaLaunchConfig_t configuration{};
  configuration.gridDim = grid;
  configuration.blockDim = block;
  configuration.dynamicSmemBytes = shared;
  configuration.stream = start.stream;
  configuration.attrs = attributes;
  configuration.numAttrs = count;
  return work(&configuration);
}

}  // namespace tandem::cuda
