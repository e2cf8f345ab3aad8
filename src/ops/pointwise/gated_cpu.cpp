// Gated over rows, in blocks that stay in the first-level cache.
#include <algorithm>
#include <array>

#include "core/check.h"
#include "core/numeric.h"
#include "ops/kernel.h"
#include "ops/pointwise/blocks_cpu.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

using namespace pointwise;

std::optional<Function> function_of(std::string_view activation) {
  constexpr std::array<std::pair<std::string_view, Function>, 6> kFunctions = {{{"gelu", Function::Gelu},
                                                                                {"gelu_tanh", Function::GeluTanh},
                                                                                {"silu", Function::Silu},
                                                                                {"relu", Function::Relu},
                                                                                {"tanh", Function::Tanh},
                                                                                {"sigmoid", Function::Sigmoid}}};
  for (const auto& [word, function] : kFunctions)
    if (word == activation) return function;
  return std::nullopt;
}

class Gated final : public PreparedKernel {
 public:
  explicit Gated(const PrepareArgs& args)
      : dtype_(args.call.operand(0).dtype), threads_(args.threads), function_(function_of(args.call.attributes.text("activation"))) {
    const Shape shape = shape_of(args.call.results.at(0));
    half_ = shape.back();
    rows_ = half_ == 0 ? 0 : element_count(shape) / half_;
  }

  std::size_t workspace_bytes() const override { return static_cast<std::size_t>(threads_) * 2 * kBlockLength * sizeof(float); }

  void run(const RunArgs& args) const override {
    const std::int64_t blocks = ceil_divide(half_, kBlockLength);
    const std::int64_t grain = std::max<std::int64_t>(1, 8 * kBlockLength / std::max<std::int64_t>(half_, 1));
    args.pool().split(rows_ * blocks, grain, [&](std::int64_t begin, std::int64_t end, int thread) {
      float* memory = reinterpret_cast<float*>(args.workspace) + static_cast<std::int64_t>(thread) * 2 * kBlockLength;
      for (std::int64_t i = begin; i < end; ++i) run_block(args, i / blocks, i % blocks * kBlockLength, memory);
    });
  }

 private:
  // Elements column … of one row.
  void run_block(const RunArgs& args, std::int64_t row, std::int64_t column, float* memory) const {
    const std::int64_t count = std::min(kBlockLength, half_ - column), gate_at = row * 2 * half_ + column;
    float* gate = memory;
    const float* up = block(args.operands[0], gate_at + half_, memory + kBlockLength, count);
    const float* from = block(args.operands[0], gate_at, gate, count);
    if (function_) {
      run_reals(*function_, &from, gate, count);
      from = gate;
    }
    std::byte* to = args.results[0] + bytes(dtype_, row * half_ + column);
    const std::array<const float*, 2> both = {from, up};
    float* product = dtype_ == DType::f32 ? reinterpret_cast<float*>(to) : gate;
    run_reals(Function::Mul, both.data(), product, count);
    if (dtype_ != DType::f32) store_block(dtype_, gate, to, count);
  }

  // Floats where they lie, others converted.
  const float* block(const std::byte* base, std::int64_t at, float* copy, std::int64_t count) const {
    const std::byte* from = base + bytes(dtype_, at);
    if (dtype_ == DType::f32) return reinterpret_cast<const float*>(from);
    load_block(dtype_, from, copy, count);
    return copy;
  }

  DType dtype_;
  int threads_;
  std::optional<Function> function_;
  std::int64_t half_ = 0, rows_ = 0;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (!is_block_type(call.operand(0).dtype)) return "it takes f32, f16 and bf16 only";
  return std::nullopt;
}

}  // namespace

extern const KernelDef gated;
const KernelDef gated = {
    .name = "gated",
    .op = "Gated",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Gated>(args); },
};

}  // namespace tandem::kernels
