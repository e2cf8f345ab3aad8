// RunCount: which collectives of a run its rank's GPU counts, where counting costs time of the GPU.
#pragma once

#include <cstddef>

namespace tandem {

// While one lives, what its thread gives to streams is one run: of its collectives the first counts, then one about every half millisecond
// that they take. Which ones depends on the calls alone, so that ranks count alike whether they give the run step by step, record it or
// replay it. Scopes of a thread may be nested. Threads of their own.
class RunCount {
 public:
  RunCount() : before_(current_) { current_ = this; }
  ~RunCount() { current_ = before_; }
  RunCount(const RunCount&) = delete;

  // Of the thread's next collective, of so many bytes; each counts outside of runs.
  static bool counts(std::size_t bytes) { return !current_ || current_->is_next(bytes); }

 private:
  // What a collective takes between H200s, at least: on slower ways counts come further apart, and cost less.
  static constexpr double kLatency = 7, kBytesPerMicrosecond = 250'000, kBetween = 500;

  bool is_next(std::size_t bytes) {
    const bool next = microseconds_ >= kBetween;
    if (next) microseconds_ = 0;
    microseconds_ += kLatency + static_cast<double>(bytes) / kBytesPerMicrosecond;
    return next;
  }

  static inline thread_local RunCount* current_ = nullptr;
  RunCount* before_;
  double microseconds_ = kBetween;  // of the collectives from the last on that counts
};

}  // namespace tandem
