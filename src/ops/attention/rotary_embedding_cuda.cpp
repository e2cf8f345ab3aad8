#include "ops/attention/rotary_embedding_cuda.h"

#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

class RotaryEmbedding final : public PreparedKernel {
 public:
  explicit RotaryEmbedding(const OpCall& call) {
    const Shape x = shape_of(call.operand(0)), angles = shape_of(call.operand(1));
    const std::size_t rows = call.attributes.text("order") == "bhsd" ? 2 : 1;
    rows_.lines = x[0] * x[1] * x[2];
    rows_.heads = static_cast<int>(x[3 - rows]);
    rows_.rows = static_cast<int>(x[rows]);
    rows_.size = static_cast<int>(x[3]);
    rows_.half = static_cast<int>(angles[2]);
    rows_.interleaved = call.attributes.boolean("interleaved");
    rows_.heads_last = rows == 1;
    rows_.angle_batch_step = angles[0] == 1 ? 0 : angles[1] * angles[2];
    rows_.type = call.operand(0).dtype;
  }

  void run(const RunArgs& args) const override {
    if (rows_.lines * rows_.size == 0) return;
    cuda::RotaryRows rows = rows_;
    rows.x = args.operands[0];
    rows.cosine = args.operands[1];
    rows.sine = args.operands[2];
    rows.y = args.results[0];
    cuda::launch_rotary_embedding(rows, cuda::start_of(args));
    cuda::check_launch("rotary embedding");
  }

 private:
  cuda::RotaryRows rows_{};
};

std::optional<std::string> refuse(const OpCall& call) {
  const DType dtype = call.operand(0).dtype;
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16) return "it rotates f32, f16 and bf16 only";
  return std::nullopt;
}

}  // namespace

extern const KernelDef cuda_rotary_embedding;
const KernelDef cuda_rotary_embedding = {
    .name = "cuda_rotary_embedding",
    .op = "RotaryEmbedding",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<RotaryEmbedding>(args.call); },
    .in_place_operand = 0,
    .device = "cuda",
    .dependent = true,
};

}  // namespace tandem::kernels
