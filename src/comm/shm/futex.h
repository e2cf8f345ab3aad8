// Sleeping on, and waking the sleepers of, a 32-bit word in shared memory.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <climits>
#include <cstdint>
#include <ctime>

namespace tandem::shm {

// Returns when woken, after `limit`, at once if the word is not `expected`, or for no reason.
inline void futex_wait(const void* word, std::uint32_t expected, std::chrono::nanoseconds limit) {
  const timespec t = {static_cast<time_t>(limit.count() / 1'000'000'000), static_cast<long>(limit.count() % 1'000'000'000)};
  syscall(SYS_futex, word, FUTEX_WAIT, expected, &t, nullptr, 0);
}

inline void futex_wake_all(const void* word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0); }

// The half of a Signal's value that counts.
inline const void* low_half(const std::atomic<std::uint64_t>& value) {
  static_assert(std::endian::native == std::endian::little);
  return &value;
}

inline void pause_spinning() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace tandem::shm
