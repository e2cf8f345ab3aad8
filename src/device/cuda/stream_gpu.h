// Which GPU a stream of a caller's is of. Private to device/cuda.
#pragma once

#include <cuda_runtime.h>

namespace tandem::cuda {

// `recorded`: the stream is, whose recording the runtime's own question would break. Not for CUDA's default streams.
int gpu_of_stream(cudaStream_t stream, bool recorded);

}  // namespace tandem::cuda
