// Copying into memory that another core will read next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
#include <emmintrin.h>
#endif

namespace tandem::shm {

// Writes past the caches. A plain store first fetches the line from the core that read it last, and that core then fetches it back, which
// between cores that share no cache costs four times what going through memory does; between cores that share one there is nothing in it.
// Call end_stream() before telling anyone. The thread sanitizer does not see such stores, so it gets plain ones.
inline void stream_copy(std::byte* to, const std::byte* from, std::size_t bytes) {
#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
  constexpr std::size_t kWorthIt = 1024, kLine = 64;
  if (bytes >= kWorthIt) {
    const std::size_t head = -reinterpret_cast<std::uintptr_t>(to) & (kLine - 1);
    std::memcpy(to, from, head);
    std::size_t at = head;
    for (; at + kLine <= bytes; at += kLine) {
      const auto* source = reinterpret_cast<const __m128i*>(from + at);
      auto* line = reinterpret_cast<__m128i*>(to + at);
      const __m128i a = _mm_loadu_si128(source), b = _mm_loadu_si128(source + 1), c = _mm_loadu_si128(source + 2),
                    d = _mm_loadu_si128(source + 3);
      _mm_stream_si128(line, a);
      _mm_stream_si128(line + 1, b);
      _mm_stream_si128(line + 2, c);
      _mm_stream_si128(line + 3, d);
    }
    to += at, from += at, bytes -= at;
  }
#endif
  if (bytes > 0) std::memcpy(to, from, bytes);
}

// Orders the stores of stream_copy() before all later ones.
inline void end_stream() {
#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
  _mm_sfence();
#endif
}

}  // namespace tandem::shm
