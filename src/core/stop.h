// StopScope: how a caller ends waits and runs of its own thread early.
#pragma once

#include <functional>

namespace tandem {

// While it lives, waits and steps of this thread ask `stop` every few milliseconds or between two steps; once it gives true they end in
// Error(interrupted). Scopes may be nested: the innermost counts. `stop` is borrowed; an empty one is never asked.
class StopScope {
 public:
  explicit StopScope(const std::function<bool()>& stop) : before_(current_) { current_ = &stop; }
  ~StopScope() { current_ = before_; }
  StopScope(const StopScope&) = delete;

  // Whether this thread has a scope that can ask.
  static bool set() { return current_ && *current_; }
  // That of this thread; null if it has none.
  static const std::function<bool()>* current() { return current_; }
  static bool wanted() { return set() && (*current_)(); }

 private:
  static inline thread_local const std::function<bool()>* current_ = nullptr;
  const std::function<bool()>* before_;
};

}  // namespace tandem
