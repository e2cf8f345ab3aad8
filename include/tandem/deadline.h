// Deadline: the moment a wait must end, on the monotonic clock that all processes of a host share. Public; belongs to core.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace tandem {

// What a wait may take unless the caller says otherwise.
inline constexpr std::chrono::nanoseconds kRendezvousDeadline = std::chrono::seconds(60);
inline constexpr std::chrono::nanoseconds kLoadDeadline = std::chrono::seconds(120);
inline constexpr std::chrono::nanoseconds kStepDeadline = std::chrono::seconds(30);
inline constexpr std::chrono::nanoseconds kDrainDeadline = std::chrono::seconds(10);

// Nanoseconds on the monotonic clock; comparable between the processes of one host.
inline std::int64_t monotonic_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Deadline {
 public:
  static Deadline after(std::chrono::nanoseconds limit) { return Deadline(monotonic_ns(), limit); }
  std::chrono::nanoseconds limit() const { return limit_; }
  // The same limit counted from a later moment of monotonic_ns(), such as a progress mark; never moves backwards.
  Deadline counted_from(std::int64_t start_ns) const { return Deadline(std::max(start_ns_, start_ns), limit_); }
  bool expired() const { return monotonic_ns() - start_ns_ >= limit_.count(); }
  // Zero once expired.
  std::chrono::nanoseconds remaining() const {
    return std::chrono::nanoseconds(std::max<std::int64_t>(0, limit_.count() - (monotonic_ns() - start_ns_)));
  }

 private:
  Deadline(std::int64_t start_ns, std::chrono::nanoseconds limit) : start_ns_(start_ns), limit_(limit) {}

  std::int64_t start_ns_;
  std::chrono::nanoseconds limit_;
};

}  // namespace tandem
