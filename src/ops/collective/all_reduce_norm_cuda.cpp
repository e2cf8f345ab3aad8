// All-reduce with the norm that follows it, on GPUs: one kernel over peer memory; elsewhere the collective and the norm, one after the
// other.
#include "comm/peer/peer_group.h"
#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/collective/all_reduce_norm.h"
#include "ops/collective/all_reduce_norm_cpu.h"
#include "ops/norm/operands.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

class OnPeers final : public PreparedKernel {
 public:
  OnPeers(peer::PeerGroup& group, const OpCall& norm, std::int64_t rows, std::int64_t length)
      : group_(group), operands_(norm_operands(norm)) {
    work_.rows = rows;
    work_.length = length;
    work_.epsilon = static_cast<float>(norm.attributes.real("epsilon"));
    work_.centers = operands_.centers;
    work_.dtype = norm.operand(0).dtype;
    biased_ = operands_.centers && norm.has_operand(operands_.bias());
    shifted_ = norm.has_operand(operands_.offset());
  }

  void run(const RunArgs& args) const override {
    peer::ReduceAndNorm work = work_;
    work.in = args.operands[0];
    work.residual = args.operands[1];
    work.scale = args.operands[operands_.scale()];
    work.bias = biased_ ? args.operands[operands_.bias()] : nullptr;
    work.offset = shifted_ ? args.operands[operands_.offset()] : nullptr;
    work.y = args.results[0];
    work.sum = args.results[1];
    work.early = args.may_start_early;
    work.resident = work.early && (args.resident & weights()) == weights();
    group_.reduce_and_norm(work, cuda::handle_of(args.stream), args.deadline.limit());
  }

 private:
  // A bit for each of what rows are normed with.
  std::uint64_t weights() const {
    std::uint64_t bits = std::uint64_t{1} << operands_.scale();
    if (biased_) bits |= std::uint64_t{1} << operands_.bias();
    if (shifted_) bits |= std::uint64_t{1} << operands_.offset();
    return bits;
  }

  peer::PeerGroup& group_;
  NormOperands operands_;
  peer::ReduceAndNorm work_{};
  bool biased_ = false, shifted_ = false;
};

// Either way a kernel is the last that the stream is given, and what comes before it is launched as ever.
std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  auto* peers = dynamic_cast<peer::PeerGroup*>(args.group);
  const OpCall norm = parts_of(args.call).norm;
  const Shape shape = shape_of(norm.operand(0));
  const std::int64_t length =
      element_count({shape.begin() + normalize_axis(norm.attributes.integer("axis"), static_cast<int>(shape.size())), shape.end()});
  const auto size = static_cast<std::int64_t>(bytes(norm.operand(0).dtype, element_count(shape)));
  if (!peers || !peers->can_reduce_and_norm(norm.operand(0).dtype, length) || !peers->one_kernel_pays(size))
    return prepare_all_reduce_then_norm(args, "cuda");
  if (peers->size() != args.call.attributes.integer("num_ranks"))
    fail(ErrorCode::mismatch, "{} is over {} ranks, its group has {}", args.call.op->name, args.call.attributes.integer("num_ranks"),
         peers->size());
  return std::make_unique<OnPeers>(*peers, norm, element_count(shape) / length, length);
}

std::optional<std::string> refuse(const OpCall& call) {
  const DType dtype = call.operand(0).dtype;
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16) return "it normalizes f32, f16 and bf16 only";
  return norm_refusal(parts_of(call).norm);
}

constexpr KernelDef define(std::string_view name, std::string_view op) {
  return {
      .name = name,
      .op = op,
      .refuse = refuse,
      .prepare = prepare,
      .in_place_operand = 0,
      .weaker = "NCCL rounds sums of 16-bit floats after each addition",
      .device = "cuda",
      .dependent = true,
      .reads_early = [](const OpCall& call, std::size_t operand) { return operand >= norm_operands(parts_of(call).norm).scale(); },
  };
}

}  // namespace

extern const KernelDef cuda_all_reduce_add_layer_norm, cuda_all_reduce_add_rms_norm;
const KernelDef cuda_all_reduce_add_layer_norm = define("cuda_all_reduce_add_layer_norm", "AllReduceAddLayerNorm");
const KernelDef cuda_all_reduce_add_rms_norm = define("cuda_all_reduce_add_rms_norm", "AllReduceAddRmsNorm");

}  // namespace tandem::kernels
