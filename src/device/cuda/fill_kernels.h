// The kernel that fills memory. For files that compile without nvcc.
#pragma once

namespace tandem::cuda {

inline constexpr unsigned kFillThreads = 256;  // of a block, each for one element

// For launches by address: (std::byte* to, unsigned value, unsigned bytes of an element: 1, 2 or 4, std::uint64_t elements).
void* fill_kernel();

}  // namespace tandem::cuda
