#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "tandem/types.h"

namespace tandem::cuda {

// How lines are searched, a block for each at a time. x is [outer, extent, inner], values and indices are [outer, k, inner]; 1 ≤ k ≤ extent
// ≤ kMostTopK.
inline constexpr std::int64_t kMostTopK = 1 << 30;
struct TopKPlan {
  DType dtype = DType::f32;
  bool largest = true;
  std::int64_t lines = 0, inner = 1;
  std::uint32_t extent = 1, k = 1;
  bool sorts_all = false;     // lines are short: all of one is sorted
  bool in_workspace = false;  // what is sorted is too much for shared memory
  std::uint32_t sorted = 1;   // candidates that are sorted, a power of two
  unsigned blocks = 1, threads = 32;
  std::size_t workspace_bytes = 0;
};
// A key and an index.
inline std::size_t top_k_candidate_bytes(DType dtype) { return bits(dtype) == 64 ? 16 : 8; }
// The first six members are given; finds the rest.
TopKPlan plan_top_k(TopKPlan plan);
void launch_top_k(const TopKPlan& plan, const void* x, void* values, std::int64_t* indices, void* workspace, cudaStream_t stream);

}  // namespace tandem::cuda
