// Kernels of the tests of groups on GPUs: inputs that depend on rank and turn, pauses, and comparison with what must come out.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace tandem::testing {

// All of these, on the thread's current GPU: where ranks share it, none may be loaded while another waits.
void load_kernels();

// One of a rank's operands in turn `turn`: small whole numbers that a sum over ranks gives exactly, in f32 and bf16 alike.
// turn counts in memory of the GPU, so that a replayed graph goes on with it.
template <typename T>
void fill(T* to, std::int64_t count, int rank, const std::uint32_t* turn, cudaStream_t stream);
// errors += elements that are not the sum over `ranks` of what fill() gave them.
template <typename T>
void compare_sum(const T* got, std::int64_t count, int ranks, const std::uint32_t* turn, unsigned long long* errors, cudaStream_t stream);
// errors += elements of `got`, [ranks, count], that are not what fill() gave those ranks.
template <typename T>
void compare_gathered(const T* got, std::int64_t count, int ranks, const std::uint32_t* turn, unsigned long long* errors,
                      cudaStream_t stream);
void next_turn(std::uint32_t* turn, cudaStream_t stream);
// 0 to `most_ns` of the GPU's clock, by rank and turn, alike often.
void pause(int rank, const std::uint32_t* turn, unsigned most_ns, cudaStream_t stream);

}  // namespace tandem::testing
