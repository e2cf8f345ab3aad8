#include "ops/quantize/quantize_cuda.h"

#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/quantize/quantizing_cuda.h"
#include "ops/quantize/scales.h"

namespace tandem::kernels {
namespace {

bool is_kernel_float(DType type) { return type == DType::f32 || type == DType::f16 || type == DType::bf16; }

template <auto kLaunch>
class Quantizing final : public PreparedKernel {
 public:
  explicit Quantizing(const PrepareArgs& args) : zero_(args.call.has_operand(kQuantizeZero)) {
    const OpCall& call = args.call;
    const Type &x = call.operand(kQuantizeX), &y = call.results.at(0);
    const Attributes& where = call.attributes;
    q_ = cuda::quantizing(scale_layout(x, call.operand(kQuantizeScale), where.integer("axis"), where.integer("block_size")));
    q_.count = element_count(shape_of(x));
    q_.from = x.dtype;
    q_.to = y.dtype;
    q_.scale_type = call.operand(kQuantizeScale).dtype;
    if (!is_quantized(y.dtype)) return;
    const QuantizedRange range = quantized_range(y.dtype);
    q_.least = static_cast<float>(range.least);
    q_.most = static_cast<float>(range.most);
  }

  void run(const RunArgs& args) const override {
    if (q_.count == 0) return;
    cuda::Quantizing q = q_;
    q.x = args.operands[kQuantizeX];
    q.scale = args.operands[kQuantizeScale];
    q.zero = zero_ ? args.operands[kQuantizeZero] : nullptr;
    q.y = args.results[0];
    kLaunch(q, cuda::handle_of(args.stream));
    cuda::check_launch("scaling");
  }

 private:
  bool zero_;
  cuda::Quantizing q_{};
};

template <auto kLaunch>
std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return std::make_unique<Quantizing<kLaunch>>(args);
}

std::optional<std::string> refuse_quantize(const OpCall& call) {
  const DType to = call.results.at(0).dtype;
  if (!is_kernel_float(call.operand(kQuantizeX).dtype) || !is_kernel_float(call.operand(kQuantizeScale).dtype))
    return "it takes numbers and scales of f32, f16 and bf16 only";
  if (!is_integer(to) && (!call.attributes.boolean("saturate") || call.has_operand(kQuantizeZero)))
    return "it gives only 8-bit floats that saturate, without zero points";
  return std::nullopt;
}

std::optional<std::string> refuse_dequantize(const OpCall& call) {
  if (!is_kernel_float(call.results.at(0).dtype) || !is_kernel_float(call.operand(kQuantizeScale).dtype))
    return "it takes scales and gives results of f32, f16 and bf16 only";
  if (call.operand(kQuantizeX).dtype == DType::i32 && call.has_operand(kQuantizeZero)) return "it shifts no i32";
  return std::nullopt;
}

}  // namespace

extern const KernelDef cuda_quantize_linear, cuda_dequantize_linear;
const KernelDef cuda_quantize_linear = {
    .name = "cuda_quantize_linear",
    .op = "QuantizeLinear",
    .refuse = refuse_quantize,
    .prepare = prepare<cuda::launch_quantize>,
    .device = "cuda",
};
const KernelDef cuda_dequantize_linear = {
    .name = "cuda_dequantize_linear",
    .op = "DequantizeLinear",
    .refuse = refuse_dequantize,
    .prepare = prepare<cuda::launch_dequantize>,
    .device = "cuda",
};

}  // namespace tandem::kernels
