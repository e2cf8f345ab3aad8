// ProgressWord: a count of the collectives that a rank's GPU has begun, written by the GPU where the other ranks see it, also while a graph
// is replayed and the host has no part in it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "comm/peer/gpu_memory.h"

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

  // Counts the collective that the stream is given next, by a kernel before it: also in each replay of what is recorded. The kernel
  // costs 1 to 3.5 us on an H200, so that of a run not each is counted (RunCount); a node beside the collective, which that would not wait
  // for, and a value that the stream writes cost more. The GPU is the thread's current one.
  void count(cudaStream_t stream) const;
  // For kernels that count by themselves: what they raise by one, in memory of the GPU, and where they then write it.
  std::uint64_t* counter() const { return counter_.get(); }
  std::uint64_t* word() const { return word_; }

 private:
  ProgressWord() = default;

  std::shared_ptr<const peer::ShownPages> page_;
  std::uint64_t* word_ = nullptr;  // in it, as the GPU sees it
  std::unique_ptr<std::uint64_t, peer::FreeOnGpu> counter_;
};

// In progress_cuda.cu: the kernel that counts, of one thread.
void launch_progress(std::uint64_t* counter, std::uint64_t* word, cudaStream_t stream);

}  // namespace tandem::nccl
