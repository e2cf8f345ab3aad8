// Deadlines as callers give them.
#pragma once

#include <chrono>

#include "core/check.h"

namespace tandem {

inline std::chrono::nanoseconds nanoseconds(const char* name, double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) fail(ErrorCode::invalid_argument, "a {} deadline of {} s is none", name, seconds);
  return std::chrono::nanoseconds(static_cast<std::int64_t>(seconds * 1e9));
}

}  // namespace tandem
