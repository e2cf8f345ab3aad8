// Where a stream stands that is recorded into a graph, by whomever.
#pragma once

#include <cuda_runtime.h>

#include <vector>

namespace tandem::cuda {

struct Capture {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  // Set while the status is cudaStreamCaptureStatusActive:
  unsigned long long id = 0;           // of the recording; no other has it as long as the process lives
  cudaGraph_t graph = nullptr;         // the recorder's; nodes may be added
  std::vector<cudaGraphNode_t> after;  // nodes that the stream's next one follows
};
Capture capture_of(cudaStream_t stream);

}  // namespace tandem::cuda
