// Copies between dense memory and strided views of it: what Transpose, Slice, Expand and parts of other kernels come down to.
#pragma once

#include <cstddef>

#include "device/cpu/thread_pool.h"
#include "tandem/types.h"

namespace tandem {

// to[index] = from[offset + Σ index·stride], `to` dense over `shape`. Counted in elements of 1, 2, 4 or 8 bytes.
class StridedCopy {
 public:
  StridedCopy(std::size_t element_bytes, const Shape& shape, const Shape& strides, std::int64_t offset = 0);
  void run(ThreadPool& pool, const std::byte* from, std::byte* to) const;

 private:
  std::int64_t source_of(std::int64_t line) const;  // where the line-th innermost row starts

  std::size_t element_bytes_;
  Shape shape_, strides_;  // of the lines: collapsed, without the innermost dimension
  std::int64_t offset_, count_;
  std::int64_t columns_ = 1, step_ = 1;
};

// memcpy that allows sizes of 0 and splits what is large over the pool.
void copy_bytes(ThreadPool& pool, const std::byte* from, std::byte* to, std::size_t size);

}  // namespace tandem
