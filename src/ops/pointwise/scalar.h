// The formulas of single elements, in double precision, and 64-bit integer arithmetic that wraps as two's complement.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace tandem::scalar {

inline double negate(double x) { return -x; }
inline double plus(double a, double b) { return a + b; }
inline double minus(double a, double b) { return a - b; }
inline double times(double a, double b) { return a * b; }

inline std::int64_t wrapped(std::uint64_t x) { return static_cast<std::int64_t>(x); }
inline std::uint64_t bits(std::int64_t x) { return static_cast<std::uint64_t>(x); }
inline std::int64_t negate(std::int64_t x) { return wrapped(0 - bits(x)); }
inline std::int64_t plus(std::int64_t a, std::int64_t b) { return wrapped(bits(a) + bits(b)); }
inline std::int64_t minus(std::int64_t a, std::int64_t b) { return wrapped(bits(a) - bits(b)); }
inline std::int64_t times(std::int64_t a, std::int64_t b) { return wrapped(bits(a) * bits(b)); }

// Integers truncate toward zero; dividing one by zero is Error(invalid_argument).
inline double divide(double a, double b) { return a / b; }
std::int64_t divide(std::int64_t a, std::int64_t b);
// The remainder with the sign of the dividend (C) or of the divisor (Python).
inline double remainder_of_dividend(double a, double b) { return std::fmod(a, b); }
std::int64_t remainder_of_dividend(std::int64_t a, std::int64_t b);
double remainder_of_divisor(double a, double b);
std::int64_t remainder_of_divisor(std::int64_t a, std::int64_t b);
inline double power(double a, double b) { return std::pow(a, b); }
std::int64_t power(std::int64_t a, std::int64_t b);

// NaN if one of them is.
template <typename T>
T smaller(T a, T b) {
  return a != a || a < b ? a : b;
}
template <typename T>
T larger(T a, T b) {
  return a != a || a > b ? a : b;
}

inline double sigmoid(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }
inline double silu(double x) { return x * sigmoid(x); }
inline double softplus(double x) { return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))) + (x != x ? x : 0); }
inline double relu(double x) { return x != x || x > 0 ? x : 0; }
inline double gelu(double x) { return 0.5 * x * std::erfc(-x / std::numbers::sqrt2); }
inline double gelu_tanh(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x))); }

// One of the words none gelu gelu_tanh silu relu tanh sigmoid: what a product may apply to its result.
double (*activation(std::string_view word))(double);

}  // namespace tandem::scalar
