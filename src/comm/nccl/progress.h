// ProgressWord: the collectives that a rank's GPU has begun, written by the GPU where the other ranks see it, also while a graph is
// replayed and the host has no part in it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>

#include "comm/peer/gpu_memory.h"
#include "device/cuda/capture.h"

namespace tandem {
class Group;
}

namespace tandem::nccl {

class ProgressWord {
 public:
  // Of the rank of this control group; all groups of one rank share one. Null where its progress lies in no memory that the GPU can write.
  static std::shared_ptr<ProgressWord> of(Group& control);
  ~ProgressWord();
  ProgressWord(const ProgressWord&) = delete;

  // Counts a collective that `give` gives to the stream: before it there; where the stream is recorded, by the caller too, beside it. Then
  // a node of the graph counts, which follows what the collective follows and the count before it, and which nothing follows: a replay ends
  // with it, but the collective does not wait for it, and it not for the collective. The GPU is the thread's current one.
  void count(cudaStream_t stream, const std::function<void()>& give);
  // For kernels that count by themselves: what they raise by one, in memory of the GPU, and where they then write it.
  std::uint64_t* counter() const { return counter_.get(); }
  std::uint64_t* word() const { return word_; }

 private:
  ProgressWord() = default;
  void count_beside(cuda::Capture at);

  std::shared_ptr<const peer::ShownPages> page_;
  std::uint64_t* word_ = nullptr;  // in it, as the GPU sees it
  std::unique_ptr<std::uint64_t, peer::FreeOnGpu> counter_;
  std::mutex mutex_;                   // of the following: groups of a rank may record in threads of their own
  unsigned long long recording_ = 0;   // the last one in which something was counted,
  cudaGraphNode_t counted_ = nullptr;  // and what counted there last
};

// In progress_cuda.cu: the kernel that counts, of one thread, in a stream, or as a node of a graph that follows these.
void launch_progress(std::uint64_t* counter, std::uint64_t* word, cudaStream_t stream);
cudaGraphNode_t add_progress(std::uint64_t* counter, std::uint64_t* word, cudaGraph_t graph, std::span<const cudaGraphNode_t> after);

}  // namespace tandem::nccl
