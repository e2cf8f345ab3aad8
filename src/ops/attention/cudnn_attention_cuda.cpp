// Attention by cuDNN where it has a kernel and is the faster one: f16 and bf16 without masks and lengths. What it turns out not to run once
// shapes are bound, our own kernel does.
#include "ops/attention/cudnn_attention_cuda.h"

#include <algorithm>

#include "device/cuda/library.h"
#include "device/cuda/runtime.h"
#include "ops/attention/flat.h"
#include "ops/attention/one_device_cuda.h"
#include "tandem/error.h"

namespace tandem::kernels {

namespace {

using namespace attention;

constexpr std::int64_t kFewRows = 64;  // our own kernels split keys where there are few queries

class Cudnn final : public PreparedKernel {
 public:
  // `own`: our kernel for the same call, for memory that does not begin at 16 bytes.
  Cudnn(const cuda::CudnnAttentionShape& shape, OperandBegins begins, int ordinal, std::unique_ptr<PreparedKernel> own)
      : attention_(shape, ordinal), begins_(begins), lse_(shape.lse), own_(std::move(own)) {}

  std::size_t workspace_bytes() const override { return std::max(attention_.workspace_bytes(), own_->workspace_bytes()); }

  void run(const RunArgs& args) const override {
    const auto unaligned = [](const void* at) { return reinterpret_cast<std::uintptr_t>(at) % 16 != 0; };
    if (std::ranges::any_of(args.operands.first(3), unaligned) || unaligned(args.results[0])) return own_->run(args);
    attention_.run(args.operands[kQ] + begins_[kQ], args.operands[kK] + begins_[kK], args.operands[kV] + begins_[kV], args.results[0],
                   lse_ ? reinterpret_cast<float*>(args.results[1]) : nullptr, args.workspace, cuda::handle_of(args.stream));
  }

 private:
  cuda::CudnnAttention attention_;
  OperandBegins begins_;
  bool lse_;
  std::unique_ptr<PreparedKernel> own_;
};

// `call` is the Attention that is meant, by symbols or numbers.
std::optional<std::string> refusal_of(const OpCall& call) {
  if (call.attributes.integer("num_ranks") > 1) return "it is spread over several ranks";
  const DType dtype = call.operand(kQ).dtype;
  if (dtype != DType::f16 && dtype != DType::bf16) return "cuDNN computes attention in f16 and bf16 only";
  for (std::size_t i = kMask; i < call.operands.size(); ++i)
    if (call.has_operand(i)) return "masks and lengths are for our own kernel";
  for (const std::size_t i : {kK, kV}) {
    const Dim& size = call.operand(i).dims[3];
    if (!size.is_constant() || size.constant() % 8 != 0 || size.constant() > 128 || size.constant() == 0)
      return "its heads are not of a multiple of 8 elements up to 128";
  }
  if (call.operand(kQ).dims[2].is_constant() && call.operand(kQ).dims[2].constant() < kFewRows)
    return "it has few rows, which our own kernel is made for";
  const std::string& causal = call.attributes.text("causal");
  if (causal != "none" && causal != "upper_left" && causal != "lower_right") return "the offset of its causal mask is known late";
  if (call.attributes.real("softcap") != 0) return "it caps scores";
  std::string why;
  if (!cuda::find_library(cuda::Which::cudnn, &why)) return "cuDNN cannot be used: " + why;
  return attention_refusal(call);
}

cuda::CudnnAttentionShape cudnn_shape(const OpCall& call, const AttentionProblem& p, bool lse) {
  using Causal = cuda::CudnnAttentionShape::Causal;
  const std::string& causal = call.attributes.text("causal");
  return {.dtype = p.dtype,
          .batch = p.batch,
          .heads = p.heads,
          .kv_heads = p.kv_heads,
          .rows = p.rows,
          .columns = p.columns,
          .size = p.size,
          .value_size = p.value_size,
          .q = p.q_steps,
          .k = p.k_steps,
          .v = p.v_steps,
          .out = p.out_steps,
          .causal = causal == "none"         ? Causal::none
                    : causal == "upper_left" ? Causal::upper_left
                                             : Causal::lower_right,
          .scale = p.scale,
          .lse = lse};
}

// A row that attends to nothing, and tensors of nothing, are what our own kernel is tested for.
bool suits(const OpCall& call, const AttentionProblem& p) {
  const bool empty = p.batch * p.heads * p.columns * p.value_size == 0;
  return !empty && p.rows >= kFewRows && !(call.attributes.text("causal") == "lower_right" && p.rows > p.columns);
}

std::unique_ptr<PreparedKernel> prepare_as(cuda::CudaDevice& device, const OpCall& call, const AttentionProblem& problem,
                                           OperandBegins begins, Gives gives = Gives::result) {
  std::unique_ptr<PreparedKernel> own = prepare_own_attention(device, call, problem, begins, gives);
  if (!suits(call, problem)) return own;
  try {
    return std::make_unique<Cudnn>(cudnn_shape(call, problem, gives == Gives::logarithms), begins, device.ordinal(), std::move(own));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    return prepare_own_attention(device, call, problem, begins, gives);
  }
}

cuda::CudaDevice& device_of(const PrepareArgs& args) { return static_cast<cuda::CudaDevice&>(*args.device); }

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return prepare_as(device_of(args), args.call, problem_of(args.call), {});
}

std::unique_ptr<PreparedKernel> prepare_flat(const PrepareArgs& args) {
  const FlatProblem flat = flat_problem_of(args.call);
  return prepare_as(device_of(args), flat.call, flat.problem, flat.begins);
}

std::optional<std::string> refuse_flat(const OpCall& call) {
  const FlatHeads flat = flat_heads(call);
  if (flat.size % 8 != 0 || flat.value_size % 8 != 0 || flat.size > 128 || flat.value_size > 128)
    return "its heads are not of a multiple of 8 elements up to 128";
  if (std::ranges::any_of(flat.begins, [](std::int64_t begin) { return begin % 8 != 0; })) return "its operands do not begin at 16 bytes";
  return refusal_of(heads_first(call));
}

}  // namespace

constexpr std::string_view kWeaker =
    "v that is infinite or NaN gives NaN where its weight is, or is rounded to, zero, hidden keys among them";

extern const KernelDef cudnn_attention, cudnn_flat_attention;
const KernelDef cudnn_attention = {.name = "cudnn_attention",
                                   .op = "Attention",
                                   .refuse = refusal_of,
                                   .prepare = prepare,
                                   .rank = -1,
                                   .library = "cudnn",
                                   .weaker = kWeaker,
                                   .device = "cuda"};
const KernelDef cudnn_flat_attention = {.name = "cudnn_flat_attention",
                                        .op = "FlatAttention",
                                        .refuse = refuse_flat,
                                        .prepare = prepare_flat,
                                        .rank = -1,
                                        .library = "cudnn",
                                        .weaker = kWeaker,
                                        .device = "cuda"};

}  // namespace tandem::kernels

namespace tandem::attention {

std::unique_ptr<PreparedKernel> prepare_attention(const PrepareArgs& args, const OpCall& call, const AttentionProblem& problem,
                                                  Gives gives) {
  cuda::CudaDevice& device = kernels::device_of(args);
  // Where a diagonal is given, call and problem do not say the same to cuDNN.
  if (args.exact || gives == Gives::sums || problem.diagonal != AttentionProblem::kNoDiagonal || kernels::refusal_of(call))
    return prepare_own_attention(device, call, problem, {}, gives);
  return kernels::prepare_as(device, call, problem, {}, gives);
}

}  // namespace tandem::attention
