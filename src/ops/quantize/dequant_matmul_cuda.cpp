// DequantMatMul on GPUs: few rows stream the codes and dequantise in registers; for many the matrix is dequantised into memory and
// multiplied by whatever multiplies such matrices best.
#include <algorithm>

#include "core/check.h"
#include "core/numeric.h"
#include "device/cuda/runtime.h"
#include "ops/arrivals_cuda.h"
#include "ops/kernel.h"
#include "ops/ops.h"
#include "ops/quantize/dequant_matvec_cuda.h"
#include "ops/quantize/dequant_problem.h"
#include "ops/quantize/quantizing_cuda.h"

namespace tandem::kernels {
namespace {

constexpr std::int64_t kAlignment = 16;  // of rows of codes

const std::byte* optional(const RunArgs& args, bool given, std::size_t operand) { return given ? args.operands[operand] : nullptr; }

class ThroughMemory final : public PreparedKernel {
 public:
  ThroughMemory(const PrepareArgs& args, const DequantProblem& p) : p_(p) {
    const Type& b = args.call.operand(kDequantB);
    const bool blocks = args.call.attributes.integer("block_size") != 0;
    q_ = cuda::quantizing(scale_layout(b, args.call.operand(kDequantScale), blocks ? 0 : 1, args.call.attributes.integer("block_size")));
    q_.count = p.k * p.n;
    q_.from = p.b;
    q_.to = p.type;
    q_.scale_type = p.scale;
    matrix_bytes_ = static_cast<std::size_t>(round_up(static_cast<std::int64_t>(bytes(p.type, q_.count)), 256));
    prepare_product(args);
  }

  std::size_t workspace_bytes() const override { return matrix_bytes_ + product_->workspace_bytes(); }

  void run(const RunArgs& args) const override {
    if (q_.count != 0) {
      cuda::Quantizing q = q_;
      q.x = args.operands[kDequantB];
      q.scale = args.operands[kDequantScale];
      q.zero = optional(args, p_.zero, kDequantZero);
      q.y = args.workspace;
      cuda::launch_dequantize(q, cuda::handle_of(args.stream));
      cuda::check_launch("dequantising a matrix");
    }
    const std::byte* operands[] = {args.operands[kDequantA], args.workspace, optional(args, p_.bias, kDequantBias),
                                   optional(args, p_.residual, kDequantResidual)};
    product_->run({.operands = std::span(operands).first(count_),
                   .results = args.results,
                   .workspace = args.workspace + matrix_bytes_,
                   .stream = args.stream,
                   .deadline = args.deadline});
  }

 private:
  void prepare_product(const PrepareArgs& args) {
    OpCall call{&ops::MatMul, Attributes(&ops::MatMul.fields), {}, args.call.results};
    call.attributes.set("activation", args.call.attributes.text("activation"));
    call.operands = {args.call.operand(kDequantA), Type{p_.type, args.call.operand(kDequantB).dims}};
    for (const std::size_t i : {kDequantBias, kDequantResidual})
      call.operands.push_back(i < args.call.operands.size() ? args.call.operands[i] : std::nullopt);
    count_ = call.operands.size();
    const std::vector<const std::byte*> weights(count_, nullptr);
    for (const KernelDef* kernel : kernels_of("MatMul", "cuda")) {
      if (kernel->through_host || refusal(*kernel, call)) continue;
      product_ = kernel->prepare({.call = call, .weights = weights, .threads = args.threads, .device = args.device});
      return;
    }
    fail(ErrorCode::internal, "no kernel multiplies {}", to_string(p_.type));
  }

  DequantProblem p_;
  cuda::Quantizing q_{};
  std::size_t matrix_bytes_ = 0, count_ = 0;
  std::unique_ptr<PreparedKernel> product_;
};

class FewRows final : public PreparedKernel {
 public:
  FewRows(const PrepareArgs& args, const DequantProblem& p) : p_(p) {
    auto& device = static_cast<cuda::CudaDevice&>(*args.device);
    const cuda::DequantCut cut = cuda::dequant_cut(p.b, p.m, p.block >= p.k && !p.zero);
    const std::int64_t column_blocks = ceil_divide(p.n, cut.columns);
    const std::int64_t at_once = std::int64_t{cut.blocks_at_once} * device.multiprocessors();
    // One wave of blocks, each with rows enough to keep its copies under way.
    const std::int64_t wanted = std::clamp<std::int64_t>(at_once / column_blocks, 1, std::max<std::int64_t>(1, p.k / kLeastDepth));
    depth_ = round_up(ceil_divide(p.k, wanted), cuda::kDequantWarps);
    splits_ = ceil_divide(p.k, depth_);
    if (!is_weight(args)) anywhere_ = std::make_unique<ThroughMemory>(args, p);
    if (splits_ == 1) return;
    arrived_ = cuda::Arrivals(device, column_blocks);
  }

  static bool is_able(const DequantProblem& p) {
    return p.m > 0 && p.m <= cuda::kDequantRows && p.n > 0 && p.k > 0 && bytes(p.b, p.n) % kAlignment == 0;
  }

  std::size_t workspace_bytes() const override {
    const std::size_t partials = splits_ == 1 ? 0 : static_cast<std::size_t>(splits_ * p_.m * p_.n) * sizeof(float);
    return std::max(partials, anywhere_ ? anywhere_->workspace_bytes() : 0);
  }

  void run(const RunArgs& args) const override {
    if (anywhere_ && reinterpret_cast<std::uintptr_t>(args.operands[kDequantB]) % kAlignment != 0) return anywhere_->run(args);
    cuda::launch_dequant_matvec(p_.b,
                                {.a = args.operands[kDequantA],
                                 .b = args.operands[kDequantB],
                                 .scale = args.operands[kDequantScale],
                                 .zero = optional(args, p_.zero, kDequantZero),
                                 .bias = optional(args, p_.bias, kDequantBias),
                                 .residual = optional(args, p_.residual, kDequantResidual),
                                 .c = args.results[0],
                                 .partials = reinterpret_cast<float*>(args.workspace),
                                 .arrived = arrived_.counters(),
                                 .m = p_.m,
                                 .n = p_.n,
                                 .k = p_.k,
                                 .block = p_.block,
                                 .scale_row = p_.scale_row,
                                 .scale_column = p_.scale_column,
                                 .depth = depth_,
                                 .splits = splits_,
                                 .type = p_.type,
                                 .scale_type = p_.scale,
                                 .activation = p_.activation},
                                cuda::handle_of(args.stream));
    cuda::check_launch("a product of few rows");
  }

 private:
  // Weights are aligned.
  static bool is_weight(const PrepareArgs& args) { return args.weights.size() > kDequantB && args.weights[kDequantB]; }

  static constexpr std::int64_t kLeastDepth = 16 * cuda::kDequantWarps;

  DequantProblem p_;
  std::int64_t depth_ = 0, splits_ = 1;
  std::unique_ptr<PreparedKernel> anywhere_;  // where b may begin anywhere
  cuda::Arrivals arrived_;
};

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  const DequantProblem p = dequant_problem(args.call);
  if (FewRows::is_able(p)) return std::make_unique<FewRows>(args, p);
  return std::make_unique<ThroughMemory>(args, p);
}

}  // namespace

extern const KernelDef cuda_dequant_matmul;
const KernelDef cuda_dequant_matmul = {
    .name = "cuda_dequant_matmul",
    .op = "DequantMatMul",
    .refuse = dequant_refusal,
    .prepare = prepare,
    .device = "cuda",
};

}  // namespace tandem::kernels
