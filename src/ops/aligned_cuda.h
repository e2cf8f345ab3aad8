// Callers may give memory that begins anywhere. Kernels that move 16 bytes at once have two plans, the second for such addresses.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

namespace tandem::cuda {

inline bool all_aligned_16(std::initializer_list<const void*> addresses) {
  for (const void* address : addresses)
    if (reinterpret_cast<std::uintptr_t>(address) % 16 != 0) return false;
  return true;
}

// What is planned for addresses that are multiples of 16, and for those that are multiples of an element only.
template <typename Plan>
struct Plans {
  Plan wide, narrow;
  const Plan& at(std::initializer_list<const void*> addresses) const { return all_aligned_16(addresses) ? wide : narrow; }
};

}  // namespace tandem::cuda
