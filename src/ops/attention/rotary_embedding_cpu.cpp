#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention/rotary_embedding_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway's order: foreach_target first.
#include <algorithm>
#include <cstring>

#include "ops/half_types_cpu.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"
#include "ops/vector_cpu-inl.h"

namespace tandem {
#ifndef TANDEM_ROTARY_ROWS
#define TANDEM_ROTARY_ROWS
struct RotaryRows {
  DType type;
  std::int64_t heads, rows, size, half;
  bool interleaved, heads_last;   // heads_last: x is [B,S,H,D]
  std::int64_t angle_batch_step;  // 0 where all batch entries share the angles
  const std::byte *x, *cosine, *sine;
  std::byte* y;
};
#endif
}  // namespace tandem

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {

// Pairs (x[j], x[j + half]); x and y may be the same memory.
template <typename T>
void rotate_halves(const T* x, const T* cosine, const T* sine, T* y, std::int64_t half) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t j = 0;
  for (; j + lanes <= half; j += lanes) {
    const V32 a = load(d, x + j), b = load(d, x + half + j), c = load(d, cosine + j), s = load(d, sine + j);
    store(d, hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), y + j);
    store(d, hn::MulAdd(b, c, hn::Mul(a, s)), y + half + j);
  }
  const auto rest = static_cast<std::size_t>(half - j);
  if (rest == 0) return;
  const V32 a = load_part(d, x + j, rest), b = load_part(d, x + half + j, rest), c = load_part(d, cosine + j, rest),
            s = load_part(d, sine + j, rest);
  store_part(d, hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), y + j, rest);
  store_part(d, hn::MulAdd(b, c, hn::Mul(a, s)), y + half + j, rest);
}

// Pairs of neighbours.
template <typename T>
void rotate_neighbours(const T* x, const T* cosine, const T* sine, T* y, std::int64_t half) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  HWY_ALIGN float pairs[2 * HWY_MAX_BYTES / sizeof(float)];
  for (std::int64_t j = 0; j < half; j += lanes) {
    const auto count = static_cast<std::size_t>(std::min(lanes, half - j));
    for (std::size_t part = 0; part < 2 * count; part += static_cast<std::size_t>(lanes)) {
      const std::size_t length = std::min(static_cast<std::size_t>(lanes), 2 * count - part);
      hn::Store(load_part(d, x + 2 * j + part, length), d, pairs + part);
    }
    V32 a, b;
    hn::LoadInterleaved2(d, pairs, a, b);
    const V32 c = load_part(d, cosine + j, count), s = load_part(d, sine + j, count);
    hn::StoreInterleaved2(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), hn::MulAdd(b, c, hn::Mul(a, s)), d, pairs);
    for (std::size_t part = 0; part < 2 * count; part += static_cast<std::size_t>(lanes)) {
      const std::size_t length = std::min(static_cast<std::size_t>(lanes), 2 * count - part);
      store_part(d, hn::Load(d, pairs + part), y + 2 * j + part, length);
    }
  }
}

void rotate_rows(const RotaryRows& r, std::int64_t begin, std::int64_t end) {
  with_float_type(r.type, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    for (std::int64_t line = begin; line < end; ++line) {
      const std::int64_t angle = line / (r.heads * r.rows) * r.angle_batch_step + (r.heads_last ? line / r.heads : line) % r.rows * r.half;
      const T* x = reinterpret_cast<const T*>(r.x) + line * r.size;
      const T *cosine = reinterpret_cast<const T*>(r.cosine) + angle, *sine = reinterpret_cast<const T*>(r.sine) + angle;
      T* y = reinterpret_cast<T*>(r.y) + line * r.size;
      if (r.interleaved) rotate_neighbours(x, cosine, sine, y, r.half);
      else rotate_halves(x, cosine, sine, y, r.half);
      if (x != y && r.size > 2 * r.half)
        std::memcpy(y + 2 * r.half, x + 2 * r.half, static_cast<std::size_t>(r.size - 2 * r.half) * sizeof(T));
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::kernels {
namespace {
HWY_EXPORT(rotate_rows);

class RotaryEmbedding final : public PreparedKernel {
 public:
  explicit RotaryEmbedding(const OpCall& call) {
    const Shape x = shape_of(call.operand(0)), angles = shape_of(call.operand(1));
    const std::size_t rows = call.attributes.text("order") == "bhsd" ? 2 : 1;
    rows_ = {.type = call.operand(0).dtype, .heads = x[3 - rows], .rows = x[rows], .size = x[3], .half = angles[2]};
    rows_.heads_last = rows == 1;
    rows_.interleaved = call.attributes.boolean("interleaved");
    rows_.angle_batch_step = angles[0] == 1 ? 0 : angles[1] * angles[2];
    lines_ = x[0] * x[1] * x[2];
  }

  void run(const RunArgs& args) const override {
    RotaryRows rows = rows_;
    rows.x = args.operands[0];
    rows.cosine = args.operands[1];
    rows.sine = args.operands[2];
    rows.y = args.results[0];
    const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(rows.size, 1));
    args.pool().split(lines_, grain, [&](std::int64_t begin, std::int64_t end, int) {
      HWY_DYNAMIC_DISPATCH(rotate_rows)(rows, begin, end);
    });
  }

 private:
  RotaryRows rows_{};
  std::int64_t lines_ = 0;
};

}  // namespace

extern const KernelDef rotary_embedding;
const KernelDef rotary_embedding = {
    .name = "rotary_embedding",
    .op = "RotaryEmbedding",
    .refuse = [](const OpCall& call) -> std::optional<std::string> {
      if (!is_vector_float(call.operand(0).dtype)) return "it rotates f32, f16 and bf16 only";
      return std::nullopt;
    },
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<RotaryEmbedding>(args.call); },
    .in_place_operand = 0,
};

}  // namespace tandem::kernels
#endif
