#include "ops/conv/conv_cuda.h"

#include "device/cuda/runtime.h"
#include "ops/conv/problem.h"
#include "ops/half_types_cpu.h"
#include "ops/kernel.h"
#include "ops/matmul/problem_cpu.h"

namespace tandem::kernels {
namespace {

using namespace conv;

class Conv final : public PreparedKernel {
 public:
  explicit Conv(const OpCall& call) : activation_(activation_of(call.attributes.text("activation"))) {
    const Problem p = problem_of(call);
    shape_ = {p.dtype, window::small(p.batch), window::small(p.groups), window::small(p.group_in), window::small(p.group_out)};
    for (std::size_t d = 0; d < 3; ++d) {
      const window::Axis& axis = window::small(p.axes[d]);
      shape_.in[d] = static_cast<int>(axis.in);
      shape_.out[d] = static_cast<int>(axis.out);
      shape_.kernel[d] = static_cast<int>(axis.kernel);
      shape_.stride[d] = static_cast<int>(axis.stride);
      shape_.dilation[d] = static_cast<int>(axis.dilation);
      shape_.before[d] = static_cast<int>(axis.before);
    }
    shape_.channels_last = p.channels_last;
    empty_ = p.is_empty();
    biased_ = call.has_operand(kBias);
    added_ = call.has_operand(kResidual);
  }

  void run(const RunArgs& args) const override {
    if (empty_) return;
    const cuda::ConvFinish finish = {biased_ ? args.operands[kBias] : nullptr, added_ ? args.operands[kResidual] : nullptr, activation_};
    cuda::launch_conv(shape_, finish, args.operands[kX], args.operands[kWeight], args.results[0], cuda::handle_of(args.stream));
    cuda::check_launch("conv");
  }

 private:
  cuda::ConvShape shape_{};
  Activation activation_;
  bool empty_ = false, biased_ = false, added_ = false;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (!is_vector_float(call.operand(kX).dtype)) return "it convolves f32, f16 and bf16 only";
  if (call.has_operand(kResidual) && call.operand(kResidual).dims != call.results.at(0).dims)
    return "the residual is not shaped as the result";
  return std::nullopt;
}

}  // namespace

extern const KernelDef cuda_conv;
const KernelDef cuda_conv = {
    .name = "cuda_conv",
    .op = "Conv",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Conv>(args.call); },
    .device = "cuda",
};

}  // namespace tandem::kernels
