// DequantMatMul and QuantMatMul on CPUs, by strips of columns: for few rows b is dequantised in registers, for more a strip of it at a time
// in the cache.
#include <algorithm>
#include <cstring>

#include "core/numeric.h"
#include "ops/convert_cpu.h"
#include "ops/half_types_cpu.h"
#include "ops/kernel.h"
#include "ops/matmul/activate_cpu.h"
#include "ops/quantize/convert_quantized_cpu.h"
#include "ops/quantize/dequant_problem.h"
#include "ops/quantize/dequant_strip_cpu.h"

namespace tandem::kernels {
namespace {

constexpr std::int64_t kFewRows = 7;  // up to so many rows reading quantised numbers again costs less than writing floats

// b in strips, each [k, 32], the last one filled up with zeros.
struct PackedStrips final : Packed {
  std::vector<std::byte> strips;
  std::size_t size_bytes() const override { return strips.size(); }
  std::byte* data() override { return strips.data(); }
  void release() override { strips = {}; }
};

std::size_t strip_bytes(const DequantProblem& p) { return bytes(p.b, p.k * kStripColumns); }

void copy_strip(const DequantProblem& p, const std::byte* b, std::int64_t column, std::byte* to) {
  const std::int64_t columns = std::min(kStripColumns, p.n - column);
  const std::size_t row = bytes(p.b, p.n), line = bytes(p.b, kStripColumns), used = bytes(p.b, columns), begin = bytes(p.b, column);
  for (std::int64_t k = 0; k < p.k; ++k) {
    std::byte* at = to + static_cast<std::size_t>(k) * line;
    std::memcpy(at, b + static_cast<std::size_t>(k) * row + begin, used);
    std::memset(at + used, 0, line - used);
  }
}

class DequantMatMulKernel final : public PreparedKernel {
 public:
  explicit DequantMatMulKernel(const PrepareArgs& args)
      : p_(dequant_problem(args.call)), threads_(args.threads), packed_(dynamic_cast<const PackedStrips*>(args.packed)) {
    if (p_.a != DType::f32) a_bytes_ = aligned(p_.m * p_.k * 4);
    const std::int64_t scales = p_.blocks() * kStripColumns * 4;
    zeros_at_ = aligned(scales);
    sums_at_ = zeros_at_ + (p_.zero ? aligned(scales) : 0);
    strip_at_ = sums_at_ + aligned(kMostRows * kStripColumns * 4);
    floats_at_ = strip_at_ + (packed_ ? 0 : aligned(static_cast<std::int64_t>(strip_bytes(p_))));
    thread_bytes_ = floats_at_ + (p_.m > kFewRows ? aligned(p_.k * kStripColumns * 4) : 0);
  }

  // a in f32, then per thread scales, zero points, sums and what is needed of a strip.
  std::size_t workspace_bytes() const override { return a_bytes_ + static_cast<std::size_t>(threads_) * thread_bytes_; }

  void run(const RunArgs& args) const override {
    const auto* a = reinterpret_cast<const float*>(args.operands[kDequantA]);
    if (p_.a != DType::f32) {
      auto* floats = reinterpret_cast<float*>(args.workspace);
      args.pool().split(p_.m * p_.k, 4096, [&](std::int64_t begin, std::int64_t end, int) {
        if (p_.both) quantized_to_floats(p_.a, args.operands[kDequantA], begin, floats + begin, end - begin);
        else to_floats(p_.a, args.operands[kDequantA] + bytes(p_.a, begin), floats + begin, end - begin);
      });
      a = floats;
    }
    if (p_.m == 0) return;
    args.pool().each(ceil_divide(p_.n, kStripColumns), [&](std::int64_t strip, int thread) { run_strip(args, a, strip, thread); });
  }

 private:
  static constexpr std::int64_t kMostRows = 6;

  static std::size_t aligned(std::int64_t size) { return static_cast<std::size_t>(round_up(size, 64)); }

  void run_strip(const RunArgs& args, const float* a, std::int64_t index, int thread) const {
    std::byte* work = args.workspace + a_bytes_ + static_cast<std::size_t>(thread) * thread_bytes_;
    auto* sums = reinterpret_cast<float*>(work + sums_at_);
    auto* floats = reinterpret_cast<float*>(work + floats_at_);
    const std::int64_t column = index * kStripColumns;
    const DequantStrip strip = strip_of(args, index, work);
    const bool few = p_.m <= kFewRows;
    if (!few) dequantize_strip(strip, floats);
    const std::int64_t step = few ? 4 : kMostRows;
    for (std::int64_t row = 0; row < p_.m;) {
      const std::int64_t rows = p_.m - row >= step ? step : 1;
      const float* from = a + row * p_.k;
      if (few) multiply_strip(strip, from, p_.k, rows, sums);
      else multiply_floats(floats, p_.k, from, p_.k, rows, sums);
      for (std::int64_t i = 0; i < rows; ++i) finish(args, row + i, column, sums + i * kStripColumns);
      row += rows;
    }
  }

  DequantStrip strip_of(const RunArgs& args, std::int64_t index, std::byte* work) const {
    const std::int64_t column = index * kStripColumns;
    DequantStrip strip{p_.b, nullptr, reinterpret_cast<const float*>(work), nullptr, p_.k, p_.block};
    if (packed_) {
      strip.b = (args.packed ? args.packed : packed_->strips.data()) + static_cast<std::size_t>(index) * strip_bytes(p_);
    } else {
      copy_strip(p_, args.operands[kDequantB], column, work + strip_at_);
      strip.b = work + strip_at_;
    }
    spread(column, reinterpret_cast<float*>(work), [&](std::int64_t from, float* to, std::int64_t count) {
      to_floats(p_.scale, args.operands[kDequantScale] + bytes(p_.scale, from), to, count);
    });
    if (!p_.zero) return strip;
    auto* zeros = reinterpret_cast<float*>(work + zeros_at_);
    spread(column, zeros, [&](std::int64_t from, float* to, std::int64_t count) {
      quantized_to_floats(p_.b, args.operands[kDequantZero], from, to, count);
    });
    strip.zeros = zeros;
    return strip;
  }

  // [blocks, 32] of what lies like the scales; zeros past the last column.
  template <typename Read>
  void spread(std::int64_t column, float* to, const Read& read) const {
    const std::int64_t columns = std::min(kStripColumns, p_.n - column);
    for (std::int64_t block = 0; block < p_.blocks(); ++block, to += kStripColumns) {
      std::fill(to, to + kStripColumns, 0.0f);
      read(block * p_.scale_row + column * p_.scale_column, to, p_.scale_column == 0 ? 1 : columns);
      if (p_.scale_column == 0) std::fill(to + 1, to + columns, to[0]);
    }
  }

  void finish(const RunArgs& args, std::int64_t row, std::int64_t column, float* sums) const {
    const std::int64_t columns = std::min(kStripColumns, p_.n - column);
    if (p_.both) {
      float scale;
      to_floats(p_.scale_a, args.operands[kQuantScaleA], &scale, 1);
      for (std::int64_t i = 0; i < columns; ++i) sums[i] *= scale;
    }
    if (p_.bias) {
      float bias[kStripColumns];
      to_floats(p_.type, args.operands[kDequantBias] + bytes(p_.type, column), bias, columns);
      for (std::int64_t i = 0; i < columns; ++i) sums[i] += bias[i];
    }
    if (p_.activation != Activation::none) activate_floats(p_.activation, sums, columns);
    const std::size_t at = bytes(p_.type, row * p_.n + column);
    from_floats_plus(p_.type, sums, p_.residual ? args.operands[kDequantResidual] + at : nullptr, args.results[0] + at, columns);
  }

  DequantProblem p_;
  int threads_;
  const PackedStrips* packed_;
  std::size_t a_bytes_ = 0, zeros_at_ = 0, sums_at_ = 0, strip_at_ = 0, floats_at_ = 0, thread_bytes_ = 0;
};

DequantProblem packed_problem(const OpCall& call) {
  const Shape b = shape_of(call.operand(kDequantB));
  DequantProblem p;
  p.b = call.operand(kDequantB).dtype;
  p.k = b[0];
  p.n = b[1];
  return p;
}

std::size_t packed_bytes(const OpCall& call, std::span<const std::byte* const> weights) {
  if (weights.size() <= kDequantB || !weights[kDequantB]) return 0;
  const DequantProblem p = packed_problem(call);
  return static_cast<std::size_t>(ceil_divide(p.n, kStripColumns)) * strip_bytes(p);
}

std::unique_ptr<Packed> pack(const OpCall& call, std::span<const std::byte* const> weights) {
  const std::size_t whole = packed_bytes(call, weights);
  if (whole == 0) return nullptr;
  const DequantProblem p = packed_problem(call);
  auto packed = std::make_unique<PackedStrips>();
  packed->strips.resize(whole);
  for (std::int64_t i = 0; i < ceil_divide(p.n, kStripColumns); ++i)
    copy_strip(p, weights[kDequantB], i * kStripColumns, packed->strips.data() + static_cast<std::size_t>(i) * strip_bytes(p));
  return packed;
}

}  // namespace

extern const KernelDef dequant_matmul, quant_matmul;
const KernelDef dequant_matmul = {
    .name = "dequant_matmul",
    .op = "DequantMatMul",
    .refuse = dequant_refusal,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<DequantMatMulKernel>(args); },
    .pack = pack,
    .packed_bytes = packed_bytes,
    .packs_operand = [](const OpCall&, std::size_t operand) { return operand == kDequantB; },
};
const KernelDef quant_matmul = {
    .name = "quant_matmul",
    .op = "QuantMatMul",
    .refuse = dequant_refusal,
    .prepare = dequant_matmul.prepare,
    .pack = pack,
    .packed_bytes = packed_bytes,
    .packs_operand = dequant_matmul.packs_operand,
};

}  // namespace tandem::kernels
