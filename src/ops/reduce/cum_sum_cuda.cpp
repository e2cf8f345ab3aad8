#include "ops/reduce/cum_sum_cuda.h"

#include <algorithm>

#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/along_axis.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

class CumSum final : public PreparedKernel {
 public:
  explicit CumSum(const OpCall& call) {
    const AxisView axis(shape_of(call.operand(0)), axis_of(call));
    view_.dtype = call.operand(0).dtype;
    view_.lines = axis.outer * axis.inner;
    if (view_.lines > cuda::kMostItems) fail(ErrorCode::unsupported, "{} lines are more than one kernel counts", view_.lines);
    view_.extent = axis.extent;
    view_.inner = cuda::Divisor(std::max<std::int64_t>(axis.inner, 1));
    view_.exclusive = call.attributes.boolean("exclusive");
    view_.reverse = call.attributes.boolean("reverse");
  }

  void run(const RunArgs& args) const override {
    cuda::launch_cum_sum(view_, args.operands[0], args.results[0], cuda::handle_of(args.stream));
    cuda::check_launch("cum_sum");
  }

 private:
  cuda::CumSumView view_;
};

std::optional<std::string> refuse(const OpCall& call) {
  const DType dtype = call.operand(0).dtype;
  if (bits(dtype) < 8 || dtype == DType::f8e4m3 || dtype == DType::f8e5m2) return fmt::format("it sums no {}", to_string(dtype));
  return std::nullopt;
}

}  // namespace

extern const KernelDef cuda_cum_sum;
const KernelDef cuda_cum_sum = {
    .name = "cuda_cum_sum",
    .op = "CumSum",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<CumSum>(args.call); },
    .device = "cuda",
};

}  // namespace tandem::kernels
