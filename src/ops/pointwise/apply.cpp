// The functions of pointwise programs on one element.
#include <cmath>

#include "core/check.h"
#include "ops/pointwise/program.h"
#include "ops/pointwise/scalar.h"

namespace tandem::pointwise {
namespace {

// What is the same on doubles and integers; nothing for the others.
template <typename T>
std::optional<T> apply_numbers(Function function, std::span<const T> x) {
  using F = Function;
  const auto truth = [](bool b) { return static_cast<T>(b ? 1 : 0); };
  switch (function) {
    case F::Abs: return x[0] < 0 ? scalar::negate(x[0]) : x[0];
    case F::Add: return scalar::plus(x[0], x[1]);
    case F::And: return truth(x[0] != 0 && x[1] != 0);
    case F::Div: return scalar::divide(x[0], x[1]);
    case F::Equal: return truth(x[0] == x[1]);
    case F::FMod: return scalar::remainder_of_dividend(x[0], x[1]);
    case F::Greater: return truth(x[0] > x[1]);
    case F::GreaterOrEqual: return truth(x[0] >= x[1]);
    case F::Less: return truth(x[0] < x[1]);
    case F::LessOrEqual: return truth(x[0] <= x[1]);
    case F::Max: return scalar::larger(x[0], x[1]);
    case F::Min: return scalar::smaller(x[0], x[1]);
    case F::Mod: return scalar::remainder_of_divisor(x[0], x[1]);
    case F::Mul: return scalar::times(x[0], x[1]);
    case F::Neg: return scalar::negate(x[0]);
    case F::Not: return truth(x[0] == 0);
    case F::Or: return truth(x[0] != 0 || x[1] != 0);
    case F::Pow: return scalar::power(x[0], x[1]);
    case F::Relu: return x[0] < 0 ? T{0} : x[0];
    case F::Sign: return x[0] != x[0] ? x[0] : static_cast<T>((x[0] > 0) - (x[0] < 0));
    case F::Sub: return scalar::minus(x[0], x[1]);
    case F::Where: return x[0] != 0 ? x[1] : x[2];
    case F::Xor: return truth((x[0] != 0) != (x[1] != 0));
    default: return std::nullopt;
  }
}

double clamped(double x) { return scalar::larger(0.0, scalar::smaller(1.0, x)); }

}  // namespace

std::int64_t apply(Function function, std::span<const std::int64_t> x) {
  const auto result = apply_numbers<std::int64_t>(function, x);
  if (!result) fail(ErrorCode::internal, "{} takes no integers", to_string(function));
  return *result;
}

double apply(Function function, std::span<const double> x) {
  using F = Function;
  if (const auto result = apply_numbers<double>(function, x)) return *result;
  switch (function) {
    case F::Ceil: return std::ceil(x[0]);
    case F::Cos: return std::cos(x[0]);
    case F::Elu: return x[0] < 0 ? x[1] * std::expm1(x[0]) : x[0];
    case F::Erf: return std::erf(x[0]);
    case F::Exp: return std::exp(x[0]);
    case F::Floor: return std::floor(x[0]);
    case F::Gelu: return scalar::gelu(x[0]);
    case F::GeluTanh: return scalar::gelu_tanh(x[0]);
    case F::HardSigmoid: return clamped(x[1] * x[0] + x[2]);
    case F::HardSwish: return x[0] * clamped(x[0] / 6 + 0.5);
    case F::IsInf: return std::isinf(x[0]);
    case F::IsNaN: return std::isnan(x[0]);
    case F::LeakyRelu: return x[0] < 0 ? x[1] * x[0] : x[0];
    case F::Log: return std::log(x[0]);
    case F::Reciprocal: return 1 / x[0];
    case F::Round: return std::nearbyint(x[0]);
    case F::Sigmoid: return scalar::sigmoid(x[0]);
    case F::Silu: return scalar::silu(x[0]);
    case F::Sin: return std::sin(x[0]);
    case F::Softplus: return scalar::softplus(x[0]);
    case F::Sqrt: return std::sqrt(x[0]);
    case F::Tanh: return std::tanh(x[0]);
    default: fail(ErrorCode::internal, "{} is done elsewhere", to_string(function));
  }
}

}  // namespace tandem::pointwise
