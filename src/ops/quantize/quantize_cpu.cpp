#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/quantize/quantize_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway's order: foreach_target first.
#include <algorithm>

#include "ops/convert_cpu.h"
#include "ops/kernel.h"
#include "ops/quantize/convert_quantized_cpu.h"
#include "ops/quantize/runs_cpu.h"
#include "ops/vector_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {

// x / scale; `scale` advances by `step`, 0 or 1.
void divide_run(float* x, const float* scale, std::int64_t step, std::int64_t count) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < count; i += lanes) {
    const auto n = static_cast<std::size_t>(std::min(lanes, count - i));
    const V32 s = step == 0 ? hn::Set(d, *scale) : load_part(d, scale + i, n);
    store_part(d, hn::Div(load_part(d, x + i, n), s), x + i, n);
  }
}

// Rounded, shifted (`zero` may be null) and within the range; NaN counts as 0 where numbers are whole.
void round_run(float* x, const float* zero, std::int64_t step, float least, float most, bool whole, std::int64_t count) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < count; i += lanes) {
    const auto n = static_cast<std::size_t>(std::min(lanes, count - i));
    V32 v = load_part(d, x + i, n);
    if (whole) {
      // Clamped first: Round and the sum are then exact.
      v = clamped(d, hn::IfThenZeroElse(hn::IsNaN(v), v), -131072.0f, 131072.0f);
      v = hn::Round(v);
      if (zero) v = hn::Add(v, step == 0 ? hn::Set(d, *zero) : load_part(d, zero + i, n));
    }
    store_part(d, clamped(d, v, least, most), x + i, n);
  }
}

// (x - zero)·scale; `zero` may be null.
void scale_run(float* x, const float* scale, const float* zero, std::int64_t step, std::int64_t count) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < count; i += lanes) {
    const auto n = static_cast<std::size_t>(std::min(lanes, count - i));
    V32 v = load_part(d, x + i, n);
    if (zero) v = hn::Sub(v, step == 0 ? hn::Set(d, *zero) : load_part(d, zero + i, n));
    v = hn::Mul(v, step == 0 ? hn::Set(d, *scale) : load_part(d, scale + i, n));
    store_part(d, v, x + i, n);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::kernels {
namespace {
HWY_EXPORT(divide_run);
HWY_EXPORT(round_run);
HWY_EXPORT(scale_run);

// Both ops: runs of elements whose scale is one number or advances with them.
class Quantizing : public PreparedKernel {
 public:
  explicit Quantizing(const OpCall& call)
      : from_(call.operand(kQuantizeX).dtype),
        to_(call.results.at(0).dtype),
        scale_(call.operand(kQuantizeScale).dtype),
        zero_(call.has_operand(kQuantizeZero)),
        runs_(call) {}

  void run(const RunArgs& args) const override {
    const std::int64_t pieces = runs_.pieces();
    const std::int64_t grain = std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(1, runs_.piece_length()));
    // Two threads must not write halves of one byte.
    const bool alone = bits(to_) < 8 && runs_.piece_length() % 2 != 0;
    args.pool().split(pieces, alone ? pieces : grain, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) run_piece(args, runs_.piece(i));
    });
  }

 protected:
  virtual void compute(const RunArgs& args, const QuantizedRun& run, const float* scale, const float* zero, float* x) const = 0;

  DType from_, to_, scale_;
  bool zero_;
  QuantizedRuns runs_;

 private:
  void run_piece(const RunArgs& args, const QuantizedRun& run) const {
    alignas(64) float x[QuantizedRuns::kLongest], scale[QuantizedRuns::kLongest], zero[QuantizedRuns::kLongest];
    const std::int64_t scales = run.step == 0 ? 1 : run.count;
    to_floats(scale_, args.operands[kQuantizeScale] + static_cast<std::size_t>(run.scale) * tandem::bytes(scale_, 1), scale, scales);
    const DType zero_type = is_quantized(from_) || from_ == DType::i32 ? from_ : to_;
    if (zero_) quantized_to_floats(zero_type, args.operands[kQuantizeZero], run.scale, zero, scales);
    compute(args, run, scale, zero_ ? zero : nullptr, x);
  }
};

class Quantize final : public Quantizing {
 public:
  explicit Quantize(const PrepareArgs& args) : Quantizing(args.call), range_(quantized_range(to_)) {}

 private:
  void compute(const RunArgs& args, const QuantizedRun& run, const float* scale, const float* zero, float* x) const override {
    to_floats(from_, args.operands[kQuantizeX] + static_cast<std::size_t>(run.first) * tandem::bytes(from_, 1), x, run.count);
    HWY_DYNAMIC_DISPATCH(divide_run)(x, scale, run.step, run.count);
    if (scale_ != DType::f32) {
      std::byte rounded[QuantizedRuns::kLongest * 2];
      from_floats(scale_, x, rounded, run.count);
      to_floats(scale_, rounded, x, run.count);
    }
    HWY_DYNAMIC_DISPATCH(round_run)
    (x, zero, run.step, static_cast<float>(range_.least), static_cast<float>(range_.most), is_integer(to_), run.count);
    floats_to_quantized(to_, x, args.results[0], run.first, run.count);
  }

  QuantizedRange range_;
};

class Dequantize final : public Quantizing {
 public:
  explicit Dequantize(const PrepareArgs& args) : Quantizing(args.call) {}

 private:
  void compute(const RunArgs& args, const QuantizedRun& run, const float* scale, const float* zero, float* x) const override {
    std::byte* y = args.results[0] + static_cast<std::size_t>(run.first) * tandem::bytes(to_, 1);
    float* floats = to_ == DType::f32 ? reinterpret_cast<float*>(y) : x;
    quantized_to_floats(from_, args.operands[kQuantizeX], run.first, floats, run.count);
    HWY_DYNAMIC_DISPATCH(scale_run)(floats, scale, zero, run.step, run.count);
    if (to_ != DType::f32) from_floats(to_, x, y, run.count);
  }
};

std::optional<std::string> refuse_quantize(const OpCall& call) {
  if (!is_vector_float(call.operand(kQuantizeX).dtype)) return "it quantises f32, f16 and bf16 only";
  if (!is_vector_float(call.operand(kQuantizeScale).dtype)) return "it takes scales of f32, f16 and bf16 only";
  const DType to = call.results.at(0).dtype;
  if (!is_integer(to) && !call.attributes.boolean("saturate")) return "it gives only 8-bit floats that saturate";
  if (!is_integer(to) && call.has_operand(kQuantizeZero)) return "it shifts no 8-bit floats";
  return std::nullopt;
}

std::optional<std::string> refuse_dequantize(const OpCall& call) {
  const DType from = call.operand(kQuantizeX).dtype;
  if (!converts_quantized(from) || (from == DType::i32 && call.has_operand(kQuantizeZero))) return "it reads no such numbers";
  if (!is_vector_float(call.results.at(0).dtype) || !is_vector_float(call.operand(kQuantizeScale).dtype))
    return "it takes scales and gives results of f32, f16 and bf16 only";
  return std::nullopt;
}

}  // namespace

extern const KernelDef quantize_linear, dequantize_linear;
const KernelDef quantize_linear = {
    .name = "quantize_linear",
    .op = "QuantizeLinear",
    .refuse = refuse_quantize,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Quantize>(args); },
};
const KernelDef dequantize_linear = {
    .name = "dequantize_linear",
    .op = "DequantizeLinear",
    .refuse = refuse_dequantize,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Dequantize>(args); },
};

}  // namespace tandem::kernels
#endif
