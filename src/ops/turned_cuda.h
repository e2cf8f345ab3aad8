// A weight kept as its transpose, for libraries that multiply by that sooner, or by nothing else.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "ops/kernel.h"
#include "ops/packed_cuda.h"

namespace tandem::cuda {

// to[c][r] = from[r][c], of elements of 1 or 2 bytes.
void launch_turn(const void* from, void* to, std::int64_t rows, std::int64_t columns, int element_bytes, cudaStream_t stream);

}  // namespace tandem::cuda

namespace tandem::kernels {

// Of a matrix [k, n], operand `operand` of its op.
struct TurnedFormat {
  std::size_t operand;
  std::int64_t k, n;
  int element_bytes;  // 1 or 2

  std::size_t size_bytes() const { return static_cast<std::size_t>(k * n * element_bytes); }
};

// `from`, which is on the thread's current GPU, as [n, k]. Waits until it is read.
std::unique_ptr<PackedBlock> turned(const std::byte* from, const TurnedFormat& format);

// A kernel for the call of `args`, whose `packed` is the matrix turned: what `plain` prepares, which reads it as it was, after turning it
// back into the workspace in every run.
std::unique_ptr<PreparedKernel> turn_back(const TurnedFormat& format, const PrepareArgs& args,
                                          std::unique_ptr<PreparedKernel> (*plain)(const PrepareArgs&));

}  // namespace tandem::kernels
