#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/along_axis.h"
#include "ops/kernel.h"
#include "ops/reduce/reduce_cuda.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

class ArgReduce final : public PreparedKernel {
 public:
  ArgReduce(const OpCall& call, bool max)
      : dtype_(call.operand(0).dtype),
        max_(max),
        last_(call.attributes.boolean("last")),
        plans_(cuda::plan_reduce(shape_of(call.operand(0)), {axis_of(call)}, dtype_)) {
    if (plans_.wide.extent == 0 && plans_.wide.outputs > 0)
      fail(ErrorCode::invalid_argument, "axis {} has no element to point at", axis_of(call));
  }

  std::size_t workspace_bytes() const override { return cuda::reduce_workspace(plans_); }

  void run(const RunArgs& args) const override {
    cuda::launch_arg_reduce(plans_.at({args.operands[0]}), max_, last_, dtype_, args.operands[0], args.results[0], args.workspace,
                            cuda::handle_of(args.stream));
    cuda::check_launch("arg_reduce");
  }

 private:
  DType dtype_;
  bool max_, last_;
  cuda::Plans<cuda::ReducePlan> plans_;
};

std::optional<std::string> refuse(const OpCall& call) {
  const Type& x = call.operand(0);
  if (x.rank() > cuda::kReduceRank) return fmt::format("it has more than {} dimensions", cuda::kReduceRank);
  if (bits(x.dtype) < 8 || x.dtype == DType::f8e4m3 || x.dtype == DType::f8e5m2)
    return fmt::format("it compares no {}", to_string(x.dtype));
  return std::nullopt;
}

template <bool kMax>
std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return std::make_unique<ArgReduce>(args.call, kMax);
}

}  // namespace

extern const KernelDef cuda_arg_max, cuda_arg_min;
const KernelDef cuda_arg_max = {.name = "cuda_arg_max", .op = "ArgMax", .refuse = refuse, .prepare = prepare<true>, .device = "cuda"};
const KernelDef cuda_arg_min = {.name = "cuda_arg_min", .op = "ArgMin", .refuse = refuse, .prepare = prepare<false>, .device = "cuda"};

}  // namespace tandem::kernels
