#include "ops/softmax/softmax_cuda.h"

#include "device/cuda/runtime.h"
#include "ops/along_axis.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

class Softmax final : public PreparedKernel {
 public:
  explicit Softmax(const PrepareArgs& args) : multiprocessors_(static_cast<const cuda::CudaDevice*>(args.device)->multiprocessors()) {
    const AxisView view(shape_of(args.call.operand(0)), axis_of(args.call));
    rows_ = {.outer = view.outer, .extent = view.extent, .inner = view.inner};
    rows_.logarithm = args.call.op->name == "LogSoftmax";
    rows_.type = args.call.operand(0).dtype;
  }

  void run(const RunArgs& args) const override {
    if (rows_.outer * rows_.extent * rows_.inner == 0) return;
    cuda::SoftmaxRows rows = rows_;
    rows.x = args.operands[0];
    rows.y = args.results[0];
    cuda::launch_softmax(rows, multiprocessors_, cuda::start_of(args));
    cuda::check_launch("softmax");
  }

 private:
  cuda::SoftmaxRows rows_{};
  int multiprocessors_;
};

std::optional<std::string> refuse(const OpCall& call) {
  const DType dtype = call.operand(0).dtype;
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16) return "it takes f32, f16 and bf16 only";
  return std::nullopt;
}

constexpr KernelDef define(std::string_view name, std::string_view op) {
  return {
      .name = name,
      .op = op,
      .refuse = refuse,
      .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Softmax>(args); },
      .in_place_operand = 0,
      .device = "cuda",
      .dependent = true,
  };
}

}  // namespace

extern const KernelDef cuda_softmax, cuda_log_softmax;
const KernelDef cuda_softmax = define("cuda_softmax", "Softmax");
const KernelDef cuda_log_softmax = define("cuda_log_softmax", "LogSoftmax");

}  // namespace tandem::kernels
