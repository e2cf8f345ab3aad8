// When things of this package may run and be freed: forks, the interpreter's exit, waits that Ctrl-C ends.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include "bind.h"
#include "tandem/error.h"

namespace tandem::python {

// False once the interpreter goes away: then nothing of Python may be touched, and what is left is not freed.
bool interpreter_alive();

// From any thread, with or without the GIL.
template <typename T>
void delete_with_gil(T* object) {
  if (!interpreter_alive()) return;
  const nb::gil_scoped_acquire gil;
  delete object;
}

// Threads do not survive a fork: what has some belongs to the process that made it.
class Birthplace {
 public:
  Birthplace();
  bool here() const;
  // Throws Error(invalid_argument) in a forked child.
  void require_here(const char* what) const;

 private:
  unsigned forks_;
};

// What a wait without the GIL asks several times a second: has Python caught a signal, or is the interpreter to end?
// One per call object; serves one thread at a time but for end().
class Interrupt {
 public:
  // True from the first signal handler that raised (Ctrl-C), or from end() on. For TeamOptions::stop and its like.
  bool stop();
  void end() { ended_ = true; }
  // Runs `work` without the GIL, which the caller holds; a Ctrl-C ends it as KeyboardInterrupt.
  template <typename Work>
  auto waiting(const Work& work) {
    raised_.reset();
    try {
      const nb::gil_scoped_release release;
      return work();
    } catch (const Error& error) {
      if (error.code() == ErrorCode::interrupted) rethrow();
      throw;
    }
  }

 private:
  void rethrow();  // what the signal handler raised, if anything

  std::optional<nb::python_error> raised_;
  std::atomic<bool> ended_{false};
  std::chrono::steady_clock::time_point asked_{};
};

// Things that hold threads, to be closed before the interpreter's exit. `close` is called with the GIL, by the exit function.
class ClosedAtExit {
 public:
  explicit ClosedAtExit(std::function<void()> close);
  ~ClosedAtExit();
  ClosedAtExit(const ClosedAtExit&) = delete;
  void close() const { close_(); }

 private:
  std::function<void()> close_;
};

}  // namespace tandem::python
