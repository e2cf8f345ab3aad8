// What differs between generations in how the compiler allots registers. Where a kernel is not told how many blocks of it are to run at
// once ptxas chooses, and would rather spill a few registers than have fewer of them. On 10.0 and newer the same code needs more registers.
#pragma once

namespace tandem::cuda {

#if __CUDA_ARCH__ >= 1000
inline constexpr bool kNeedsRegisters = true;
#else
inline constexpr bool kNeedsRegisters = false;
#endif
#if __CUDA_ARCH__ >= 900
inline constexpr bool kBefore90 = false;
#else
inline constexpr bool kBefore90 = true;
#endif

// For __launch_bounds__(threads, blocks): one block at least, which leaves it all registers, or as many as ptxas chooses.
inline constexpr int kRoomFrom100 = kNeedsRegisters ? 1 : 0;
inline constexpr int kRoomBefore90 = kBefore90 ? 1 : 0;

}  // namespace tandem::cuda
