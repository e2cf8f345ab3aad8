#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/reduce/reduce_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway's order: foreach_target first.
#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/check.h"
#include "core/numeric.h"
#include "ops/half_types_cpu.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"
#include "ops/vector_cpu-inl.h"

namespace tandem {
#ifndef TANDEM_REDUCE_VIEW
#define TANDEM_REDUCE_VIEW
enum class ReduceKind : std::uint8_t { sum, mean, max, min, prod, l1, l2, sum_square };

// x is [outer, extent, inner] and y [outer, inner], in memory of dtype `type`.
struct ReduceView {
  ReduceKind kind;
  DType type;
  std::int64_t outer, extent, inner;
  const std::byte* x;
  std::byte* y;
};
#endif
}  // namespace tandem

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {

HWY_INLINE V32 start_of(F32 d, ReduceKind kind) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float start = kind == ReduceKind::max ? -kInfinity : kind == ReduceKind::min ? kInfinity : kind == ReduceKind::prod ? 1.0f : 0.0f;
  return hn::Set(d, start);
}

// Numbers that are none stay, from either side.
HWY_INLINE V32 extreme(V32 sum, V32 v, bool max) {
  const auto better = max ? hn::Gt(v, sum) : hn::Lt(v, sum);
  return hn::IfThenElse(hn::Or(better, hn::IsNaN(v)), v, sum);
}

template <ReduceKind kKind>
HWY_INLINE V32 combine(V32 sum, V32 v) {
  switch (kKind) {
    case ReduceKind::max: return extreme(sum, v, true);
    case ReduceKind::min: return extreme(sum, v, false);
    case ReduceKind::prod: return hn::Mul(sum, v);
    case ReduceKind::l1: return hn::Add(sum, hn::Abs(v));
    case ReduceKind::l2:
    case ReduceKind::sum_square: return hn::MulAdd(v, v, sum);
    default: return hn::Add(sum, v);
  }
}

// Two partial results.
template <ReduceKind kKind>
HWY_INLINE V32 join(V32 a, V32 b) {
  if (kKind == ReduceKind::max || kKind == ReduceKind::min || kKind == ReduceKind::prod) return combine<kKind>(a, b);
  return hn::Add(a, b);
}

template <ReduceKind kKind>
HWY_INLINE V32 finish(F32 d, V32 sum, std::int64_t extent) {
  if (kKind == ReduceKind::mean) return hn::Div(sum, hn::Set(d, static_cast<float>(extent)));
  return kKind == ReduceKind::l2 ? hn::Sqrt(sum) : sum;
}

// One row: four sums at a time, then across the lanes.
template <ReduceKind kKind, typename T>
float reduce_row(const T* x, std::int64_t extent) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V32 start = start_of(d, kKind);
  V32 sums[4] = {start, start, start, start};
  std::int64_t i = 0;
  for (; i + 4 * lanes <= extent; i += 4 * lanes) {
    sums[0] = combine<kKind>(sums[0], load(d, x + i));
    sums[1] = combine<kKind>(sums[1], load(d, x + i + lanes));
    sums[2] = combine<kKind>(sums[2], load(d, x + i + 2 * lanes));
    sums[3] = combine<kKind>(sums[3], load(d, x + i + 3 * lanes));
  }
  for (; i + lanes <= extent; i += lanes) sums[0] = combine<kKind>(sums[0], load(d, x + i));
  if (i < extent) {
    const auto rest = static_cast<std::size_t>(extent - i);
    sums[1] = hn::IfThenElse(hn::FirstN(d, rest), combine<kKind>(sums[1], load_part(d, x + i, rest)), sums[1]);
  }
  HWY_ALIGN float parts[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(join<kKind>(join<kKind>(sums[0], sums[1]), join<kKind>(sums[2], sums[3])), d, parts);
  V32 sum = start;
  for (std::int64_t lane = 0; lane < lanes; ++lane) sum = join<kKind>(sum, hn::Set(d, parts[lane]));
  return hn::GetLane(finish<kKind>(d, sum, extent));
}

// `count` neighbouring columns (at most a vector) of one block.
template <ReduceKind kKind, typename T>
void reduce_columns(const ReduceView& v, const T* x, T* y, std::size_t count) {
  const F32 d;
  const bool whole = count == hn::Lanes(d);
  V32 sum = start_of(d, kKind);
  for (std::int64_t r = 0; r < v.extent; ++r, x += v.inner) sum = combine<kKind>(sum, whole ? load(d, x) : load_part(d, x, count));
  sum = finish<kKind>(d, sum, v.extent);
  if (whole) store(d, sum, y);
  else store_part(d, sum, y, count);
}

template <ReduceKind kKind, typename T>
void reduce_typed(const ReduceView& v, std::int64_t begin, std::int64_t end) {
  const auto* x = reinterpret_cast<const T*>(v.x);
  auto* y = reinterpret_cast<T*>(v.y);
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(F32()));
  for (std::int64_t o = begin; o < end; ++o) {
    if (v.inner == 1) {
      const F32 d;
      store_part(d, hn::Set(d, reduce_row<kKind>(x + o * v.extent, v.extent)), y + o, 1);
      continue;
    }
    for (std::int64_t i = 0; i < v.inner; i += lanes)
      reduce_columns<kKind>(v, x + o * v.extent * v.inner + i, y + o * v.inner + i, static_cast<std::size_t>(std::min(lanes, v.inner - i)));
  }
}

template <ReduceKind kKind>
void reduce_kind(const ReduceView& v, std::int64_t begin, std::int64_t end) {
  with_float_type(v.type, [&](auto* t) { reduce_typed<kKind, std::remove_pointer_t<decltype(t)>>(v, begin, end); });
}

void reduce_blocks(const ReduceView& v, std::int64_t begin, std::int64_t end) {
  switch (v.kind) {
    case ReduceKind::sum: return reduce_kind<ReduceKind::sum>(v, begin, end);
    case ReduceKind::mean: return reduce_kind<ReduceKind::mean>(v, begin, end);
    case ReduceKind::max: return reduce_kind<ReduceKind::max>(v, begin, end);
    case ReduceKind::min: return reduce_kind<ReduceKind::min>(v, begin, end);
    case ReduceKind::prod: return reduce_kind<ReduceKind::prod>(v, begin, end);
    case ReduceKind::l1: return reduce_kind<ReduceKind::l1>(v, begin, end);
    case ReduceKind::l2: return reduce_kind<ReduceKind::l2>(v, begin, end);
    case ReduceKind::sum_square: return reduce_kind<ReduceKind::sum_square>(v, begin, end);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::kernels {
namespace {
HWY_EXPORT(reduce_blocks);

std::optional<ReduceKind> kind_of(const std::string& word) {
  constexpr std::array<std::pair<std::string_view, ReduceKind>, 8> words = {{{"sum", ReduceKind::sum},
                                                                             {"mean", ReduceKind::mean},
                                                                             {"max", ReduceKind::max},
                                                                             {"min", ReduceKind::min},
                                                                             {"prod", ReduceKind::prod},
                                                                             {"l1", ReduceKind::l1},
                                                                             {"l2", ReduceKind::l2},
                                                                             {"sum_square", ReduceKind::sum_square}}};
  for (const auto& [name, kind] : words)
    if (name == word) return kind;
  return std::nullopt;
}

class Reduce final : public PreparedKernel {
 public:
  explicit Reduce(const OpCall& call) : view_{.kind = kind_of(call.attributes.text("kind")).value(), .type = call.operand(0).dtype} {
    const Shape shape = shape_of(call.operand(0));
    const std::vector<int> axes = normalize_axes(call.attributes.integers("axes"), static_cast<int>(shape.size()));
    view_.outer = element_count({shape.begin(), shape.begin() + axes.front()});
    view_.extent = element_count({shape.begin() + axes.front(), shape.begin() + axes.back() + 1});
    view_.inner = element_count({shape.begin() + axes.back() + 1, shape.end()});
  }

  void run(const RunArgs& args) const override {
    ReduceView v = view_;
    v.x = args.operands[0];
    v.y = args.results[0];
    const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(v.extent * v.inner, 1));
    args.pool().split(v.outer, grain, [&](std::int64_t begin, std::int64_t end, int) {
      HWY_DYNAMIC_DISPATCH(reduce_blocks)(v, begin, end);
    });
  }

 private:
  ReduceView view_;
};

std::optional<std::string> refuse(const OpCall& call) {
  const Type& x = call.operand(0);
  if (!is_vector_float(x.dtype)) return "it reduces f32, f16 and bf16 only";
  if (!kind_of(call.attributes.text("kind"))) return fmt::format("it knows no {}", call.attributes.text("kind"));
  const std::vector<int> axes = normalize_axes(call.attributes.integers("axes"), x.rank());
  if (axes.empty()) return "it reduces nothing";
  for (std::size_t i = 1; i < axes.size(); ++i)
    if (axes[i] != axes[i - 1] + 1) return "the axes are no neighbours";
  return std::nullopt;
}

}  // namespace

extern const KernelDef reduce;
const KernelDef reduce = {
    .name = "reduce",
    .op = "Reduce",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Reduce>(args.call); },
};

}  // namespace tandem::kernels
#endif
