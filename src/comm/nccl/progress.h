// ProgressWord: the collectives that a rank's GPU has begun, written by the GPU where the other ranks see it, also while a graph is
// replayed and the host has no part in it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

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

  // Gives the stream what counts one more.
  void begin(cudaStream_t stream) const;
  // For kernels that count by themselves: what they raise by one, in memory of the GPU, and where they then write it.
  std::uint64_t* counter() const { return counter_; }
  std::uint64_t* word() const { return word_; }

 private:
  ProgressWord() = default;

  void* page_ = nullptr;              // registered memory of the host
  std::uint64_t* word_ = nullptr;     // in it, as the GPU sees it
  std::uint64_t* counter_ = nullptr;  // on the GPU
};

// In progress_cuda.cu.
void launch_progress(std::uint64_t* counter, std::uint64_t* word, cudaStream_t stream);

}  // namespace tandem::nccl
