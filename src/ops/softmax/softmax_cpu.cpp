#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/softmax/softmax_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway's order: foreach_target first.
#include <algorithm>
#include <cmath>

#include "core/numeric.h"
#include "ops/convert_cpu.h"
#include "ops/half_types_cpu.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"
#include "ops/vector_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {

constexpr std::int64_t kBlock = 1024;  // elements that are summed by themselves: one running sum of a long row loses digits

// In and out may be the same memory.
void softmax_row(const float* x, float* y, std::int64_t n, bool logarithm) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V32 lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  V32 tops = lowest, totals = hn::Zero(d);
  const std::int64_t whole = n / lanes * lanes;
  const auto rest = static_cast<std::size_t>(n - whole);
  const auto used = hn::FirstN(d, rest);
  for (std::int64_t i = 0; i < whole; i += lanes) tops = hn::Max(hn::LoadU(d, x + i), tops);
  if (rest) tops = hn::Max(hn::IfThenElse(used, load_part(d, x + whole, rest), lowest), tops);
  const V32 top = hn::MaxOfLanes(d, tops);
  for (std::int64_t block = 0; block < whole; block += kBlock) {
    V32 part = hn::Zero(d);
    for (std::int64_t i = block; i < std::min(whole, block + kBlock); i += lanes) {
      const V32 shifted = hn::Sub(hn::LoadU(d, x + i), top);
      const V32 e = fast_exp(d, shifted);
      part = hn::Add(part, e);
      hn::StoreU(logarithm ? shifted : e, d, y + i);
    }
    totals = hn::Add(totals, part);
  }
  if (rest) {
    const V32 shifted = hn::Sub(load_part(d, x + whole, rest), top);
    const V32 e = hn::IfThenElseZero(used, fast_exp(d, shifted));
    totals = hn::Add(totals, e);
    store_part(d, logarithm ? shifted : e, y + whole, rest);
  }
  const float total = hn::GetLane(hn::SumOfLanes(d, totals));
  const V32 scale = hn::Set(d, logarithm ? std::log(total) : 1.0f / total);
  const auto finish = [&](V32 v) { return logarithm ? hn::Sub(v, scale) : hn::Mul(v, scale); };
  for (std::int64_t i = 0; i < whole; i += lanes) hn::StoreU(finish(hn::LoadU(d, y + i)), d, y + i);
  if (rest) store_part(d, finish(load_part(d, y + whole, rest)), y + whole, rest);
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::kernels {
namespace {
HWY_EXPORT(softmax_row);

class Softmax final : public PreparedKernel {
 public:
  Softmax(const OpCall& call, int threads) : dtype_(call.operand(0).dtype), threads_(threads), logarithm_(call.op->name == "LogSoftmax") {
    const Shape shape = shape_of(call.operand(0));
    length_ = shape.back();
    rows_ = length_ == 0 ? 0 : element_count(shape) / length_;
  }

  // A row in f32 per thread.
  std::size_t workspace_bytes() const override {
    return dtype_ == DType::f32 ? 0 : static_cast<std::size_t>(threads_ * row_floats()) * sizeof(float);
  }

  void run(const RunArgs& args) const override {
    const std::int64_t grain = std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(length_, 1));
    const std::size_t row_bytes = bytes(dtype_, length_);
    args.pool().split(rows_, grain, [&](std::int64_t begin, std::int64_t end, int thread) {
      float* copy = reinterpret_cast<float*>(args.workspace) + thread * row_floats();
      for (std::int64_t row = begin; row < end; ++row) {
        const std::byte* x = args.operands[0] + static_cast<std::size_t>(row) * row_bytes;
        std::byte* y = args.results[0] + static_cast<std::size_t>(row) * row_bytes;
        if (dtype_ == DType::f32) {
          HWY_DYNAMIC_DISPATCH(softmax_row)(reinterpret_cast<const float*>(x), reinterpret_cast<float*>(y), length_, logarithm_);
          continue;
        }
        to_floats(dtype_, x, copy, length_);
        HWY_DYNAMIC_DISPATCH(softmax_row)(copy, copy, length_, logarithm_);
        from_floats(dtype_, copy, y, length_);
      }
    });
  }

 private:
  std::int64_t row_floats() const { return round_up(length_, 16); }

  DType dtype_;
  int threads_;
  bool logarithm_;
  std::int64_t length_ = 0, rows_ = 0;
};

std::optional<std::string> refuse(const OpCall& call) {
  const Type& x = call.operand(0);
  if (!is_vector_float(x.dtype)) return "it takes f32, f16 and bf16 only";
  if (normalize_axis(call.attributes.integer("axis"), x.rank()) != x.rank() - 1) return "it works along the last axis only";
  return std::nullopt;
}

constexpr KernelDef define(std::string_view name, std::string_view op) {
  return {
      .name = name,
      .op = op,
      .refuse = refuse,
      .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> {
        return std::make_unique<Softmax>(args.call, args.threads);
      },
      .in_place_operand = 0,
  };
}

}  // namespace

extern const KernelDef softmax, log_softmax;
const KernelDef softmax = define("softmax", "Softmax");
const KernelDef log_softmax = define("log_softmax", "LogSoftmax");

}  // namespace tandem::kernels
#endif
