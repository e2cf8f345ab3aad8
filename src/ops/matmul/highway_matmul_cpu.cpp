#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/matmul/highway_matmul_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway's order: foreach_target first.
#include <algorithm>
#include <cmath>

#include "core/numeric.h"
#include "ops/convert_cpu.h"
#include "ops/matmul/activate_cpu-inl.h"
#include "ops/matmul/highway_matmul_cpu.h"
#include "ops/matmul/problem_cpu.h"
#include "ops/vector_cpu-inl.h"

namespace tandem {
#ifndef TANDEM_HIGHWAY_MATMUL_PANEL
#define TANDEM_HIGHWAY_MATMUL_PANEL
// Rows of a times a whole b, in f32; the result in memory of dtype `type`.
struct MatMulPanel {
  const float* a;
  const float* b;
  const float* bias;          // [n] or null
  const std::byte* residual;  // like c, or null
  std::byte* c;
  std::int64_t rows, k, n;
  DType type;
  Activation activation;
};
#endif
}  // namespace tandem

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {

// kRows x two vectors of the result; the second vector and the end of the last may lie outside n.
template <int kRows, typename T>
void multiply_block(const MatMulPanel& p, std::int64_t row, std::int64_t column) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const auto left = static_cast<std::size_t>(p.n - column);
  const std::size_t counts[2] = {std::min(lanes, left), left > lanes ? std::min(lanes, left - lanes) : 0};
  const bool whole = left >= 2 * lanes;
  V32 sum[kRows][2];
  for (auto& line : sum) line[0] = line[1] = hn::Zero(d);
  const float* b = p.b + column;
  const float* a = p.a + row * p.k;
  for (std::int64_t k = 0; k < p.k; ++k, b += p.n) {
    const V32 b0 = whole ? hn::LoadU(d, b) : load_part(d, b, counts[0]);
    const V32 b1 = whole ? hn::LoadU(d, b + lanes) : counts[1] ? load_part(d, b + lanes, counts[1]) : hn::Zero(d);
    for (int i = 0; i < kRows; ++i) {
      const V32 x = hn::Set(d, a[i * p.k + k]);
      sum[i][0] = hn::MulAdd(x, b0, sum[i][0]);
      sum[i][1] = hn::MulAdd(x, b1, sum[i][1]);
    }
  }
  for (int j = 0; j < 2 && counts[j] != 0; ++j) {
    const std::int64_t at = column + j * static_cast<std::int64_t>(lanes);
    const V32 bias = p.bias ? load_part(d, p.bias + at, counts[j]) : hn::Zero(d);
    for (int i = 0; i < kRows; ++i) {
      V32 v = activate(d, hn::Add(sum[i][j], bias), p.activation);
      const std::int64_t c = (row + i) * p.n + at;
      if (p.residual) v = hn::Add(v, load_part(d, reinterpret_cast<const T*>(p.residual) + c, counts[j]));
      store_part(d, v, reinterpret_cast<T*>(p.c) + c, counts[j]);
    }
  }
}

void multiply_panel(const MatMulPanel& p) {
  with_float_type(p.type, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    const auto step = static_cast<std::int64_t>(2 * hn::Lanes(F32()));
    constexpr int kRows = 6;
    for (std::int64_t column = 0; column < p.n; column += step) {
      std::int64_t row = 0;
      for (; row + kRows <= p.rows; row += kRows) multiply_block<kRows, T>(p, row, column);
      for (; row < p.rows; ++row) multiply_block<1, T>(p, row, column);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::kernels {
namespace {
HWY_EXPORT(multiply_panel);

class HighwayMatMul final : public PreparedKernel {
 public:
  explicit HighwayMatMul(const PrepareArgs& args) : p_(matmul_problem(args.call)), threads_(args.threads), half_(p_.dtype != DType::f32) {
    rows_ = std::clamp<std::int64_t>(p_.m, 1, 24);
    if (!half_) return;
    b_at_ = round_up(p_.k * p_.n, 16);
    bias_at_ = b_at_ + (p_.bias ? round_up(p_.n, 16) : 0);
  }

  // f32 copies of b and the bias, then per thread of some rows of a.
  std::size_t workspace_bytes() const override {
    return half_ ? static_cast<std::size_t>(bias_at_ + threads_ * a_floats()) * sizeof(float) : 0;
  }

  void run(const RunArgs& args) const override {
    auto* work = reinterpret_cast<float*>(args.workspace);
    const std::byte* bias_from = p_.bias ? args.operands[kMatMulBias] : nullptr;
    const float* bias = reinterpret_cast<const float*>(bias_from);
    if (half_ && bias) {
      to_floats(p_.dtype, bias_from, work + b_at_, p_.n);
      bias = work + b_at_;
    }
    for (const MatMulProblem::Offsets& product : p_.products) run_product(args, product, bias, work);
  }

 private:
  std::int64_t a_floats() const { return round_up(rows_ * p_.k, 16); }

  void run_product(const RunArgs& args, const MatMulProblem::Offsets& product, const float* bias, float* work) const {
    const auto at = [this](const std::byte* base, std::int64_t elements) { return base + bytes(p_.dtype, elements); };
    if (p_.m == 0 || p_.n == 0) return;
    const auto* b = p_.k == 0 ? nullptr : reinterpret_cast<const float*>(at(args.operands[kMatMulB], product.b));
    if (half_ && b) {
      args.pool().split(p_.k, 16, [&](std::int64_t begin, std::int64_t end, int) {
        to_floats(p_.dtype, at(args.operands[kMatMulB], product.b + begin * p_.n), work + begin * p_.n, (end - begin) * p_.n);
      });
      b = work;
    }
    args.pool().each(ceil_divide(p_.m, rows_), [&](std::int64_t task, int thread) {
      const std::int64_t row = task * rows_, rows = std::min(rows_, p_.m - row), c = product.c + row * p_.n;
      const std::byte* a_from = p_.k == 0 ? nullptr : at(args.operands[kMatMulA], product.a + row * p_.k);
      const auto* a = reinterpret_cast<const float*>(a_from);
      if (half_ && a) {
        float* copy = work + bias_at_ + thread * a_floats();
        to_floats(p_.dtype, a_from, copy, rows * p_.k);
        a = copy;
      }
      const std::byte* residual = p_.residual ? at(args.operands[kMatMulResidual], c) : nullptr;
      HWY_DYNAMIC_DISPATCH(multiply_panel)
      ({a, b, bias, residual, args.results[0] + bytes(p_.dtype, c), rows, p_.k, p_.n, p_.dtype, p_.activation});
    });
  }

  MatMulProblem p_;
  int threads_;
  bool half_;
  std::int64_t rows_ = 1, b_at_ = 0, bias_at_ = 0;
};

}  // namespace

std::unique_ptr<PreparedKernel> prepare_highway_matmul(const PrepareArgs& args) { return std::make_unique<HighwayMatMul>(args); }

extern const KernelDef highway_matmul;
const KernelDef highway_matmul = {
    .name = "highway_matmul",
    .op = "MatMul",
    .refuse = matmul_refusal,
    .prepare = prepare_highway_matmul,
    .rank = 10,
};

}  // namespace tandem::kernels
#endif
