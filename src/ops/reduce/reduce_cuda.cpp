#include "ops/reduce/reduce_cuda.h"

#include <algorithm>
#include <array>

#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

using cuda::ReduceKind;

ReduceKind kind_of(const OpCall& call) {
  // In the order of ReduceKind.
  constexpr std::array<std::string_view, 10> words = {"sum", "mean", "max",        "min",     "prod",
                                                      "l1",  "l2",   "sum_square", "log_sum", "log_sum_exp"};
  const auto found = std::ranges::find(words, call.attributes.text("kind"));
  check(found != words.end(), "a kind of reduction");
  return static_cast<ReduceKind>(found - words.begin());
}

bool is_reduced_float(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f64; }

class Reduce final : public PreparedKernel {
 public:
  explicit Reduce(const OpCall& call) : kind_(kind_of(call)), dtype_(call.operand(0).dtype) {
    const Shape shape = shape_of(call.operand(0));
    plans_ = cuda::plan_reduce(shape, normalize_axes(call.attributes.integers("axes"), static_cast<int>(shape.size())), dtype_);
    const bool needs_one = kind_ == ReduceKind::max || kind_ == ReduceKind::min || kind_ == ReduceKind::mean;
    if (!is_float(dtype_) && needs_one && plans_.wide.extent == 0 && plans_.wide.outputs > 0)
      fail(ErrorCode::invalid_argument, "the {} of no integers", call.attributes.text("kind"));
  }

  std::size_t workspace_bytes() const override { return cuda::reduce_workspace(plans_); }

  void run(const RunArgs& args) const override {
    const auto launch = is_float(dtype_) ? cuda::launch_reduce : cuda::launch_reduce_integers;
    launch(plans_.at({args.operands[0]}), kind_, dtype_, args.operands[0], args.results[0], args.workspace, cuda::handle_of(args.stream));
    cuda::check_launch("reduce");
  }

 private:
  ReduceKind kind_;
  DType dtype_;
  cuda::Plans<cuda::ReducePlan> plans_;
};

std::optional<std::string> refuse(const OpCall& call) {
  const Type& x = call.operand(0);
  if (x.rank() > cuda::kReduceRank) return fmt::format("it has more than {} dimensions", cuda::kReduceRank);
  if (is_reduced_float(x.dtype)) return std::nullopt;
  if (!is_integer(x.dtype) || bits(x.dtype) < 8) return fmt::format("it reduces no {}", to_string(x.dtype));
  const ReduceKind kind = kind_of(call);
  if (kind == ReduceKind::l2 || kind == ReduceKind::log_sum || kind == ReduceKind::log_sum_exp)
    return "it takes no roots or logarithms of integers";
  return std::nullopt;
}

}  // namespace

extern const KernelDef cuda_reduce;
const KernelDef cuda_reduce = {
    .name = "cuda_reduce",
    .op = "Reduce",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Reduce>(args.call); },
    .device = "cuda",
};

}  // namespace tandem::kernels
