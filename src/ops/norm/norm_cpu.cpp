#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/norm/norm_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway's order: foreach_target first.
#include <cmath>

#include "ops/half_types_cpu.h"
#include "ops/kernel.h"
#include "ops/norm/operands.h"
#include "ops/shape_rules.h"
#include "ops/vector_cpu-inl.h"

namespace tandem {
#ifndef TANDEM_NORM_ROWS
#define TANDEM_NORM_ROWS
struct NormRows {
  const std::byte* x;
  const std::byte* residual;  // null: x is normalized as it is
  const std::byte* offset;    // [length], added to every row of x; null: none
  const std::byte* scale;
  const std::byte* bias;  // null: none
  std::byte* y;
  std::byte* sum;  // x + offset + residual
  std::int64_t length;
  float epsilon;
  bool centers;
  DType type;
};
#endif
}  // namespace tandem

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {

// Calls f(begin, lanes in use) for each vector of a row; lanes in use is 0 for a whole one.
template <typename F>
HWY_INLINE void each_vector(std::int64_t length, std::int64_t lanes, F f) {
  std::int64_t i = 0;
  for (; i + lanes <= length; i += lanes) f(i, std::size_t{0});
  if (i < length) f(i, static_cast<std::size_t>(length - i));
}

template <typename T>
void normalize_row(const NormRows& rows, std::int64_t row) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t n = rows.length;
  const auto line = [&](auto* base) {
    return reinterpret_cast<std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(base)>>, const T, T>*>(base) + row * n;
  };
  const T* x = line(rows.x);
  V32 total = hn::Zero(d);
  if (rows.residual) {
    const T* residual = line(rows.residual);
    const T* offset = reinterpret_cast<const T*>(rows.offset);
    T* sum = line(rows.sum);
    each_vector(n, lanes, [&](std::int64_t i, std::size_t part) {
      const auto of = [&](const T* p) { return part == 0 ? load(d, p + i) : load_part(d, p + i, part); };
      const V32 v = hn::Add(offset ? hn::Add(of(x), of(offset)) : of(x), of(residual));
      if (part == 0) store(d, v, sum + i);
      else store_part(d, v, sum + i, part);
    });
    x = sum;  // the norm sees the sum as it is stored
  }
  const auto at = [&](std::int64_t i, std::size_t part) { return part == 0 ? load(d, x + i) : load_part(d, x + i, part); };
  if (rows.centers) each_vector(n, lanes, [&](std::int64_t i, std::size_t part) { total = hn::Add(total, at(i, part)); });
  const float mean = hn::GetLane(hn::SumOfLanes(d, total)) / static_cast<float>(n);
  const V32 center = hn::Set(d, mean);
  V32 squares = hn::Zero(d);
  each_vector(n, lanes, [&](std::int64_t i, std::size_t part) {
    V32 v = hn::Sub(at(i, part), center);
    if (part != 0) v = hn::IfThenElseZero(hn::FirstN(d, part), v);
    squares = hn::MulAdd(v, v, squares);
  });
  const float variance = hn::GetLane(hn::SumOfLanes(d, squares)) / static_cast<float>(n);
  const V32 factor = hn::Set(d, 1.0f / std::sqrt(variance + rows.epsilon));
  const T* scale = reinterpret_cast<const T*>(rows.scale);
  const T* bias = reinterpret_cast<const T*>(rows.bias);
  T* y = line(rows.y);
  each_vector(n, lanes, [&](std::int64_t i, std::size_t part) {
    const V32 v = hn::Mul(hn::Sub(at(i, part), center), factor);
    if (part == 0) return store(d, hn::MulAdd(v, load(d, scale + i), bias ? load(d, bias + i) : hn::Zero(d)), y + i);
    const V32 shift = bias ? load_part(d, bias + i, part) : hn::Zero(d);
    store_part(d, hn::MulAdd(v, load_part(d, scale + i, part), shift), y + i, part);
  });
}

void normalize_rows(const NormRows& rows, std::int64_t begin, std::int64_t end) {
  with_float_type(rows.type, [&](auto* t) {
    for (std::int64_t row = begin; row < end; ++row) normalize_row<std::remove_pointer_t<decltype(t)>>(rows, row);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::kernels {
namespace {
HWY_EXPORT(normalize_rows);

class Norm final : public PreparedKernel {
 public:
  explicit Norm(const OpCall& call) : kind_(norm_operands(call)), dtype_(call.operand(0).dtype) {
    biased_ = kind_.centers && call.has_operand(kind_.bias());
    shifted_ = kind_.adds && call.has_operand(kind_.offset());
    const Shape shape = shape_of(call.operand(0));
    const int axis = normalize_axis(call.attributes.integer("axis"), static_cast<int>(shape.size()));
    length_ = element_count({shape.begin() + axis, shape.end()});
    rows_ = length_ == 0 ? 0 : element_count(shape) / length_;
    epsilon_ = static_cast<float>(call.attributes.real("epsilon"));
  }

  void run(const RunArgs& args) const override {
    const NormRows rows = {.x = args.operands[0],
                           .residual = kind_.adds ? args.operands[1] : nullptr,
                           .offset = shifted_ ? args.operands[kind_.offset()] : nullptr,
                           .scale = args.operands[kind_.scale()],
                           .bias = biased_ ? args.operands[kind_.bias()] : nullptr,
                           .y = args.results[0],
                           .sum = kind_.adds ? args.results[1] : nullptr,
                           .length = length_,
                           .epsilon = epsilon_,
                           .centers = kind_.centers,
                           .type = dtype_};
    const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(length_, 1));
    args.pool().split(rows_, grain, [&](std::int64_t begin, std::int64_t end, int) {
      HWY_DYNAMIC_DISPATCH(normalize_rows)(rows, begin, end);
    });
  }

 private:
  NormOperands kind_;
  DType dtype_;
  bool biased_ = false, shifted_ = false;
  std::int64_t length_ = 0, rows_ = 0;
  float epsilon_ = 0;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (!is_vector_float(call.operand(0).dtype)) return "it normalizes f32, f16 and bf16 only";
  return norm_refusal(call);
}

constexpr KernelDef define(std::string_view name, std::string_view op) {
  return {
      .name = name,
      .op = op,
      .refuse = refuse,
      .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Norm>(args.call); },
      .in_place_operand = 0,
  };
}

}  // namespace

extern const KernelDef layer_norm, rms_norm, add_layer_norm, add_rms_norm;
const KernelDef layer_norm = define("layer_norm", "LayerNorm");
const KernelDef rms_norm = define("rms_norm", "RmsNorm");
const KernelDef add_layer_norm = define("add_layer_norm", "AddLayerNorm");
const KernelDef add_rms_norm = define("add_rms_norm", "AddRmsNorm");

}  // namespace tandem::kernels
#endif
