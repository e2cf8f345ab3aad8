// Integer arithmetic that throws Error(invalid_argument) instead of overflowing, and floor/ceil division.
#pragma once

#include <cstdint>

#include "core/check.h"

namespace tandem {

inline std::int64_t checked_add(std::int64_t a, std::int64_t b) {
  std::int64_t r;
  if (__builtin_add_overflow(a, b, &r)) fail(ErrorCode::invalid_argument, "{} + {} overflows 64 bits", a, b);
  return r;
}

inline std::int64_t checked_multiply(std::int64_t a, std::int64_t b) {
  std::int64_t r;
  if (__builtin_mul_overflow(a, b, &r)) fail(ErrorCode::invalid_argument, "{} * {} overflows 64 bits", a, b);
  return r;
}

// Rounds toward minus infinity; b must not be 0.
inline std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == 0) fail(ErrorCode::invalid_argument, "division of {} by zero", a);
  if (b == -1) return checked_multiply(a, -1);
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

inline std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return checked_multiply(floor_divide(checked_multiply(a, -1), b), -1); }

// The remainder that goes with floor_divide: has the sign of b.
inline std::int64_t floor_modulo(std::int64_t a, std::int64_t b) {
  if (b == 0) fail(ErrorCode::invalid_argument, "division of {} by zero", a);
  if (b == -1) return 0;  // the least number % -1 traps
  const std::int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

inline std::int64_t round_up(std::int64_t value, std::int64_t multiple) { return checked_multiply(ceil_divide(value, multiple), multiple); }

}  // namespace tandem
