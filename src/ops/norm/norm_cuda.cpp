#include "ops/norm/norm_cuda.h"

#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/norm/operands.h"
#include "ops/shape_rules.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

class Norm final : public PreparedKernel {
 public:
  explicit Norm(const PrepareArgs& args)
      : operands_(norm_operands(args.call)), multiprocessors_(static_cast<const cuda::CudaDevice*>(args.device)->multiprocessors()) {
    const OpCall& call = args.call;
    const Shape shape = shape_of(call.operand(0));
    const int axis = normalize_axis(call.attributes.integer("axis"), static_cast<int>(shape.size()));
    rows_.length = element_count({shape.begin() + axis, shape.end()});
    rows_.rows = rows_.length == 0 ? 0 : element_count(shape) / rows_.length;
    rows_.share = 1.0f / static_cast<float>(rows_.length);
    rows_.epsilon = static_cast<float>(call.attributes.real("epsilon"));
    rows_.centers = operands_.centers;
    rows_.type = call.operand(0).dtype;
    biased_ = operands_.centers && call.has_operand(operands_.bias());
    shifted_ = operands_.adds && call.has_operand(operands_.offset());
  }

  void run(const RunArgs& args) const override {
    if (rows_.rows == 0) return;
    cuda::NormRows rows = rows_;
    rows.x = args.operands[0];
    rows.residual = operands_.adds ? args.operands[1] : nullptr;
    rows.offset = shifted_ ? args.operands[operands_.offset()] : nullptr;
    rows.scale = args.operands[operands_.scale()];
    rows.bias = biased_ ? args.operands[operands_.bias()] : nullptr;
    rows.y = args.results[0];
    rows.sum = operands_.adds ? args.results[1] : nullptr;
    cuda::launch_norm(rows, multiprocessors_, cuda::start_of(args));
    cuda::check_launch("norm");
  }

 private:
  NormOperands operands_;
  cuda::NormRows rows_{};
  bool biased_ = false, shifted_ = false;
  int multiprocessors_;
};

std::optional<std::string> refuse(const OpCall& call) {
  const DType dtype = call.operand(0).dtype;
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16) return "it normalizes f32, f16 and bf16 only";
  return norm_refusal(call);
}

constexpr KernelDef define(std::string_view name, std::string_view op) {
  return {
      .name = name,
      .op = op,
      .refuse = refuse,
      .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Norm>(args); },
      .in_place_operand = 0,
      .device = "cuda",
      .dependent = true,
  };
}

}  // namespace

extern const KernelDef cuda_layer_norm, cuda_rms_norm, cuda_add_layer_norm, cuda_add_rms_norm;
const KernelDef cuda_layer_norm = define("cuda_layer_norm", "LayerNorm");
const KernelDef cuda_rms_norm = define("cuda_rms_norm", "RmsNorm");
const KernelDef cuda_add_layer_norm = define("cuda_add_layer_norm", "AddLayerNorm");
const KernelDef cuda_add_rms_norm = define("cuda_add_rms_norm", "AddRmsNorm");

}  // namespace tandem::kernels
