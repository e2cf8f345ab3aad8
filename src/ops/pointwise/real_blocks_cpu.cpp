#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/pointwise/real_blocks_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway's order: foreach_target first.
#include <algorithm>
#include <array>

#include "ops/pointwise/blocks_cpu.h"
#include "ops/vector_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::pointwise {
namespace HWY_NAMESPACE {

using namespace tandem::HWY_NAMESPACE;

// Applies f(d, vectors…) to blocks; the last vector is loaded and stored in part.
template <int kArity, typename F>
HWY_INLINE void map(const float* const* x, float* y, std::int64_t count, F f) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto call = [&](auto get) {
    if constexpr (kArity == 1) return f(d, get(0));
    else if constexpr (kArity == 2) return f(d, get(0), get(1));
    else return f(d, get(0), get(1), get(2));
  };
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(call([&](int a) { return hn::LoadU(d, x[a] + i); }), d, y + i);
  const auto rest = static_cast<std::size_t>(count - i);
  if (rest) store_part(d, call([&](int a) { return load_part(d, x[a] + i, rest); }), y + i, rest);
}

// What has no vector form: libm in double.
HWY_INLINE void map_scalar(Function function, const float* const* x, float* y, std::int64_t count) {
  const int n = arity(function);
  std::array<double, 3> in{};
  for (std::int64_t i = 0; i < count; ++i) {
    for (int a = 0; a < n; ++a) in[static_cast<std::size_t>(a)] = x[a][i];
    y[i] = static_cast<float>(apply(function, std::span<const double>(in.data(), static_cast<std::size_t>(n))));
  }
}

bool all_equal(const float* x, std::int64_t count, float value) {
  return std::all_of(x, x + count, [value](float v) { return v == value; });
}

void pow_block(const float* const* x, float* y, std::int64_t count) {
  const float* two[2] = {x[0], x[0]};
  if (all_equal(x[1], count, 2.0f)) return map<2>(two, y, count, [](auto, auto a, auto b) { return hn::Mul(a, b); });
  if (all_equal(x[1], count, 3.0f)) return map<2>(two, y, count, [](auto, auto a, auto b) { return hn::Mul(hn::Mul(a, b), b); });
  map_scalar(Function::Pow, x, y, count);
}

template <typename M>
HWY_INLINE V32 truth(F32 d, M mask) {
  return hn::IfThenElseZero(mask, hn::Set(d, 1.0f));
}
HWY_INLINE auto holds(F32 d, V32 v) { return hn::Ne(v, hn::Zero(d)); }
// NaN if either is.
HWY_INLINE V32 larger(V32 a, V32 b) { return hn::IfThenElse(hn::Or(hn::IsNaN(a), hn::Gt(a, b)), a, b); }
HWY_INLINE V32 smaller(V32 a, V32 b) { return hn::IfThenElse(hn::Or(hn::IsNaN(a), hn::Lt(a, b)), a, b); }
HWY_INLINE V32 unit(F32 d, V32 v) { return clamped(d, v, 0.0f, 1.0f); }

// Unary functions of a float; false if this is none of them.
bool run_unary(Function function, const float* const* x, float* y, std::int64_t count) {
  using F = Function;
  switch (function) {
    case F::Abs: map<1>(x, y, count, [](auto, auto v) { return hn::Abs(v); }); return true;
    case F::Ceil: map<1>(x, y, count, [](auto, auto v) { return hn::Ceil(v); }); return true;
    case F::Erf: map<1>(x, y, count, [](auto d, auto v) { return erf(d, v); }); return true;
    case F::Exp: map<1>(x, y, count, [](auto d, auto v) { return fast_exp(d, v); }); return true;
    case F::Floor: map<1>(x, y, count, [](auto, auto v) { return hn::Floor(v); }); return true;
    case F::Gelu: map<1>(x, y, count, [](auto d, auto v) { return gelu(d, v); }); return true;
    case F::GeluTanh: map<1>(x, y, count, [](auto d, auto v) { return gelu_tanh(d, v); }); return true;
    case F::HardSwish:
      map<1>(x, y, count, [](auto d, auto v) { return hn::Mul(v, unit(d, hn::MulAdd(v, hn::Set(d, 1.0f / 6), hn::Set(d, 0.5f)))); });
      return true;
    case F::IsInf:
      map<1>(x, y, count, [](auto d, auto v) { return truth(d, hn::Eq(hn::Abs(v), hn::Set(d, std::numeric_limits<float>::infinity()))); });
      return true;
    case F::IsNaN: map<1>(x, y, count, [](auto d, auto v) { return truth(d, hn::IsNaN(v)); }); return true;
    case F::Neg: map<1>(x, y, count, [](auto, auto v) { return hn::Neg(v); }); return true;
    case F::Not: map<1>(x, y, count, [](auto d, auto v) { return truth(d, hn::Eq(v, hn::Zero(d))); }); return true;
    case F::Reciprocal: map<1>(x, y, count, [](auto d, auto v) { return hn::Div(hn::Set(d, 1.0f), v); }); return true;
    case F::Relu: map<1>(x, y, count, [](auto d, auto v) { return positive(d, v); }); return true;
    case F::Round: map<1>(x, y, count, [](auto, auto v) { return hn::Round(v); }); return true;
    case F::Sigmoid: map<1>(x, y, count, [](auto d, auto v) { return sigmoid(d, v); }); return true;
    case F::Silu: map<1>(x, y, count, [](auto d, auto v) { return silu(d, v); }); return true;
    case F::Sqrt: map<1>(x, y, count, [](auto, auto v) { return hn::Sqrt(v); }); return true;
    case F::Tanh: map<1>(x, y, count, [](auto d, auto v) { return tanh(d, v); }); return true;
    default: return false;
  }
}

void run_reals_all(Function function, const float* const* x, float* y, std::int64_t count) {
  using F = Function;
  if (run_unary(function, x, y, count)) return;
  switch (function) {
    case F::Add: return map<2>(x, y, count, [](auto, auto a, auto b) { return hn::Add(a, b); });
    case F::And: return map<2>(x, y, count, [](auto d, auto a, auto b) { return truth(d, hn::And(holds(d, a), holds(d, b))); });
    case F::Div: return map<2>(x, y, count, [](auto, auto a, auto b) { return hn::Div(a, b); });
    case F::Equal: return map<2>(x, y, count, [](auto d, auto a, auto b) { return truth(d, hn::Eq(a, b)); });
    case F::Greater: return map<2>(x, y, count, [](auto d, auto a, auto b) { return truth(d, hn::Gt(a, b)); });
    case F::GreaterOrEqual: return map<2>(x, y, count, [](auto d, auto a, auto b) { return truth(d, hn::Ge(a, b)); });
    case F::HardSigmoid: return map<3>(x, y, count, [](auto d, auto v, auto a, auto b) { return unit(d, hn::MulAdd(v, a, b)); });
    case F::LeakyRelu:
      return map<2>(x, y, count, [](auto d, auto v, auto a) { return hn::IfThenElse(hn::Lt(v, hn::Zero(d)), hn::Mul(v, a), v); });
    case F::Less: return map<2>(x, y, count, [](auto d, auto a, auto b) { return truth(d, hn::Lt(a, b)); });
    case F::LessOrEqual: return map<2>(x, y, count, [](auto d, auto a, auto b) { return truth(d, hn::Le(a, b)); });
    case F::Max: return map<2>(x, y, count, [](auto, auto a, auto b) { return larger(a, b); });
    case F::Min: return map<2>(x, y, count, [](auto, auto a, auto b) { return smaller(a, b); });
    case F::Mul: return map<2>(x, y, count, [](auto, auto a, auto b) { return hn::Mul(a, b); });
    case F::Or: return map<2>(x, y, count, [](auto d, auto a, auto b) { return truth(d, hn::Or(holds(d, a), holds(d, b))); });
    case F::Pow: return pow_block(x, y, count);
    case F::Sub: return map<2>(x, y, count, [](auto, auto a, auto b) { return hn::Sub(a, b); });
    case F::Where: return map<3>(x, y, count, [](auto d, auto c, auto a, auto b) { return hn::IfThenElse(holds(d, c), a, b); });
    case F::Xor: return map<2>(x, y, count, [](auto d, auto a, auto b) { return truth(d, hn::Xor(holds(d, a), holds(d, b))); });
    default: return map_scalar(function, x, y, count);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem::pointwise
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::pointwise {
HWY_EXPORT(run_reals_all);

void run_reals(Function function, const float* const* x, float* y, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(run_reals_all)(function, x, y, count);
}

}  // namespace tandem::pointwise
#endif
