// Division by numbers known on the host, as kernels of GPUs do it: one multiplication. The device's half is in move_cuda.cuh.
#pragma once

#include <cstdint>

namespace tandem::cuda {

// Largest dividend, and the most items that one launch counts.
inline constexpr std::int64_t kMostItems = 0x7fffffff;

// n / by for 0 ≤ n ≤ kMostItems and 1 ≤ by ≤ kMostItems: (the high word of n · multiplier, plus n) >> shift [Granlund, Montgomery 1994].
struct Divisor {
  std::uint32_t by = 1, multiplier = 1, shift = 0;

  Divisor() = default;
  explicit Divisor(std::int64_t divisor) : by(static_cast<std::uint32_t>(divisor)) {
    while ((std::uint64_t{1} << shift) < by) ++shift;
    multiplier = static_cast<std::uint32_t>(((std::uint64_t{1} << 32) * ((std::uint64_t{1} << shift) - by)) / by + 1);
  }
};

}  // namespace tandem::cuda
