#include "ops/pointwise/scalar.h"

#include "core/check.h"

namespace tandem::scalar {

std::int64_t divide(std::int64_t a, std::int64_t b) {
  if (b == 0) fail(ErrorCode::invalid_argument, "integer division of {} by zero", a);
  return b == -1 ? negate(a) : a / b;
}

std::int64_t remainder_of_dividend(std::int64_t a, std::int64_t b) {
  if (b == 0) fail(ErrorCode::invalid_argument, "integer remainder of {} by zero", a);
  return b == -1 ? 0 : a % b;
}

std::int64_t remainder_of_divisor(std::int64_t a, std::int64_t b) {
  const std::int64_t r = remainder_of_dividend(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

double remainder_of_divisor(double a, double b) {
  const double r = std::fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

std::int64_t power(std::int64_t a, std::int64_t b) {
  if (b < 0) return a == 1 ? 1 : a == -1 ? (b % 2 == 0 ? 1 : -1) : 0;
  std::int64_t result = 1;
  for (; b > 0; b >>= 1, a = times(a, a))
    if (b & 1) result = times(result, a);
  return result;
}

double (*activation(std::string_view word))(double) {
  if (word == "none") return [](double x) { return x; };
  if (word == "gelu") return gelu;
  if (word == "gelu_tanh") return gelu_tanh;
  if (word == "silu") return silu;
  if (word == "relu") return relu;
  if (word == "tanh") return [](double x) { return std::tanh(x); };
  if (word == "sigmoid") return sigmoid;
  fail(ErrorCode::internal, "no activation '{}'", word);
}

}  // namespace tandem::scalar
