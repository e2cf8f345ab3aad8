// QuantMatMul on any GPU: activations are dequantised into memory, and what multiplies them with quantised weights does the rest.
#include "core/check.h"
#include "core/numeric.h"
#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/ops.h"
#include "ops/quantize/dequant_problem.h"
#include "ops/quantize/quantizing_cuda.h"

namespace tandem::kernels {

extern const KernelDef cuda_dequant_matmul;

namespace {

class ThroughFloats final : public PreparedKernel {
 public:
  explicit ThroughFloats(const PrepareArgs& args) : p_(dequant_problem(args.call)) {
    q_ = cuda::quantizing(scale_layout(args.call.operand(kDequantA), args.call.operand(kQuantScaleA), 0, 0));
    q_.count = p_.m * p_.k;
    q_.from = p_.a;
    q_.to = p_.type;
    q_.scale_type = p_.scale_a;
    floats_bytes_ = static_cast<std::size_t>(round_up(static_cast<std::int64_t>(bytes(p_.type, q_.count)), 256));
    OpCall call{&ops::DequantMatMul, Attributes(&ops::DequantMatMul.fields), args.call.operands, args.call.results};
    call.attributes.set("activation", args.call.attributes.text("activation"));
    call.operands.resize(kDequantScale + 1);
    call.operands[kDequantA] = Type{p_.type, args.call.operand(kDequantA).dims};
    product_ = cuda_dequant_matmul.prepare({.call = call,
                                            .weights = args.weights.empty() ? args.weights : args.weights.first(kDequantScale + 1),
                                            .threads = args.threads,
                                            .device = args.device});
  }

  std::size_t workspace_bytes() const override { return floats_bytes_ + product_->workspace_bytes(); }

  void run(const RunArgs& args) const override {
    if (q_.count != 0) {
      cuda::Quantizing q = q_;
      q.x = args.operands[kDequantA];
      q.scale = args.operands[kQuantScaleA];
      q.y = args.workspace;
      cuda::launch_dequantize(q, cuda::handle_of(args.stream));
      cuda::check_launch("dequantising activations");
    }
    std::vector<const std::byte*> operands(args.operands.begin(), args.operands.begin() + kQuantScaleA);
    operands[kDequantA] = args.workspace;
    product_->run({.operands = operands,
                   .results = args.results,
                   .workspace = args.workspace + floats_bytes_,
                   .stream = args.stream,
                   .deadline = args.deadline});
  }

 private:
  DequantProblem p_;
  cuda::Quantizing q_{};
  std::size_t floats_bytes_ = 0;
  std::unique_ptr<PreparedKernel> product_;
};

}  // namespace

extern const KernelDef cuda_quant_matmul;
const KernelDef cuda_quant_matmul = {
    .name = "cuda_quant_matmul_in_floats",
    .op = "QuantMatMul",
    .refuse = dequant_refusal,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<ThroughFloats>(args); },
    .rank = 1,
    .device = "cuda",
};

}  // namespace tandem::kernels
