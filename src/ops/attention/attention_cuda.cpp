#include "ops/attention/attention_cuda.h"

#include <algorithm>
#include <array>
#include <limits>

#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/arrivals_cuda.h"
#include "ops/attention/flat.h"
#include "ops/attention/one_device_cuda.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

using namespace attention;

cuda::AttentionSteps steps_of(const Steps& steps) { return {steps.batch, steps.head, steps.row}; }

int extent(std::int64_t n) {
  if (n > std::numeric_limits<int>::max() / 2) fail(ErrorCode::unsupported, "attention over {} rows is more than its kernels count to", n);
  return static_cast<int>(n);
}

// Everything but pointers.
cuda::AttentionRun run_of(const OpCall& call, const AttentionProblem& p) {
  cuda::AttentionRun run{};
  run.type = p.dtype;
  run.batch = extent(p.batch);
  run.heads = extent(p.heads);
  run.kv_heads = extent(p.kv_heads);
  run.rows = extent(p.rows);
  run.columns = extent(p.columns);
  run.size = extent(p.size);
  run.value_size = extent(p.value_size);
  if (p.kv_heads > 0) extent(p.heads / p.kv_heads * p.rows);
  run.q_steps = steps_of(p.q_steps);
  run.k_steps = steps_of(p.k_steps);
  run.v_steps = steps_of(p.v_steps);
  run.out_steps = steps_of(p.out_steps);
  run.masked = call.has_operand(kMask);
  run.mask_type = p.mask_dtype;
  run.mask_steps = steps_of(p.mask_steps);
  run.mask_column_step = p.mask_column_step;
  const std::string& causal = call.attributes.text("causal");
  run.causal = causal != "none";
  run.diagonal = causal == "lower_right" ? p.columns - p.rows : 0;
  if (p.diagonal != AttentionProblem::kNoDiagonal) run.diagonal = p.diagonal;
  run.first_row = p.first_row;
  run.first_column = p.first_column;
  run.scale = p.scale;
  run.softcap = p.softcap;
  run.empty_is_nan = p.empty_is_nan;
  return run;
}

class Attention final : public PreparedKernel {
 public:
  // `begins`: the bytes of q, k and v before their first element.
  Attention(OpCall call, const AttentionProblem& problem, OperandBegins begins, Gives gives, cuda::CudaDevice& device)
      : call_(std::move(call)),
        run_(run_of(call_, problem)),
        begins_(begins),
        gives_(gives),
        device_{device.multiprocessors(), device.shared_bytes(), device.sm() >= 90} {
    empty_ = problem.batch * problem.heads * problem.rows * problem.value_size == 0;
    if (empty_) return;
    on_tensor_cores_ = cuda::takes_tensor_attention(run_, device_);
    decodes_ = cuda::takes_decode_attention(run_, device_);
    if (decodes_) {
      cuda::check(cuda::prepare_decode_attention(run_, device_, split_), "preparing attention");
      parts_ = split_.parts;
      if (parts_ > 1) arrived_ = cuda::Arrivals(device, cuda::decode_tasks(run_));
    } else if (!on_tensor_cores_) parts_ = cuda::plain_attention_parts(run_, device_);
    if (on_tensor_cores_) cuda::check(cuda::prepare_tensor_attention(run_, device_), "preparing attention");
    cuda::check(cuda::prepare_plain_attention(run_), "preparing attention");
  }

  std::size_t workspace_bytes() const override { return empty_ ? 0 : cuda::attention_parts_bytes(run_, parts_); }

  void run(const RunArgs& args) const override {
    if (empty_) return;
    cuda::AttentionRun run = run_;
    run.q = args.operands[kQ] + begins_[kQ];
    run.k = args.operands[kK] + begins_[kK];
    run.v = args.operands[kV] + begins_[kV];
    if (gives_ != Gives::sums) run.out = args.results[0];
    else run.sums = reinterpret_cast<float*>(args.results[0]), run.lines = reinterpret_cast<float2*>(args.results[1]);
    if (gives_ == Gives::logarithms) run.lse = reinterpret_cast<float*>(args.results[1]);
    run.mask = run.masked ? args.operands[kMask] : nullptr;
    run.row_counts = integers(args, kQueryLengths);
    run.column_counts = integers(args, kKeyLengths);
    run.past = integers(args, kPast);
    const cudaStream_t stream = cuda::handle_of(args.stream);
    const cuda::AttentionParts parts = cuda::attention_parts_in(run, parts_, args.workspace);
    if (decodes_ && aligned(run)) cuda::launch_decode_attention(run, split_, parts, arrived_.counters(), cuda::start_of(args));
    else if (on_tensor_cores_ && aligned(run)) cuda::launch_tensor_attention(run, device_, stream);
    else cuda::launch_plain_attention(run, parts, stream);
    cuda::check_launch("attention");
  }

 private:
  static bool aligned(const cuda::AttentionRun& run) {
    return std::ranges::all_of(std::array{run.q, run.k, run.v, static_cast<const void*>(run.out)},
                               [](const void* at) { return reinterpret_cast<std::uintptr_t>(at) % 16 == 0; });
  }

  cuda::DeviceIntegers integers(const RunArgs& args, std::size_t operand) const {
    if (!call_.has_operand(operand)) return {};
    return {args.operands[operand], call_.operand(operand).dtype == DType::i64};
  }

  OpCall call_;
  cuda::AttentionRun run_;
  OperandBegins begins_;
  Gives gives_;
  cuda::DeviceLimits device_;
  int parts_ = 1;
  cuda::DecodeSplit split_;
  cuda::Arrivals arrived_;
  bool empty_ = false, on_tensor_cores_ = false, decodes_ = false;
};

std::optional<std::string> size_refusal(const Dim& size) {
  if (!size.is_constant() || size.constant() > cuda::kMostAttentionSize)
    return "its heads are of more than 256 elements, or of no fixed number";
  return std::nullopt;
}

std::optional<std::string> refuse(const OpCall& call) {
  if (call.attributes.integer("num_ranks") > 1) return "it is spread over several ranks";
  return own_attention_refusal(call);
}

std::optional<std::string> refuse_flat(const OpCall& call) {
  if (call.attributes.integer("num_ranks") > 1) return "it is spread over several ranks";
  const FlatHeads flat = flat_heads(call);
  for (const std::int64_t size : {flat.size, flat.value_size})
    if (auto reason = size_refusal(Dim(size))) return reason;
  return attention_refusal(call);
}

cuda::CudaDevice& device_of(const PrepareArgs& args) { return static_cast<cuda::CudaDevice&>(*args.device); }

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return prepare_own_attention(device_of(args), args.call, problem_of(args.call), {});
}

std::unique_ptr<PreparedKernel> prepare_flat(const PrepareArgs& args) {
  const FlatProblem flat = flat_problem_of(args.call);
  return prepare_own_attention(device_of(args), flat.call, flat.problem, flat.begins);
}

}  // namespace

extern const KernelDef cuda_attention, cuda_flat_attention;
const KernelDef cuda_attention = {
    .name = "cuda_attention", .op = "Attention", .refuse = refuse, .prepare = prepare, .device = "cuda", .dependent = true};
const KernelDef cuda_flat_attention = {.name = "cuda_flat_attention",
                                       .op = "FlatAttention",
                                       .refuse = refuse_flat,
                                       .prepare = prepare_flat,
                                       .device = "cuda",
                                       .dependent = true};

}  // namespace tandem::kernels

namespace tandem::attention {

std::optional<std::string> own_attention_refusal(const OpCall& call) {
  for (const std::size_t i : {kK, kV})
    if (auto reason = kernels::size_refusal(call.operand(i).dims[3])) return reason;
  return attention_refusal(call);
}

std::unique_ptr<PreparedKernel> prepare_own_attention(cuda::CudaDevice& device, const OpCall& call, const AttentionProblem& problem,
                                                      OperandBegins begins, Gives gives) {
  return std::make_unique<kernels::Attention>(call, problem, begins, gives, device);
}

}  // namespace tandem::attention
