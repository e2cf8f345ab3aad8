// Attention over a split sequence on GPUs: the attention of one device, with exchanges of the group around it. By heads (every rank trades
// its rows of all heads for all rows of its heads) or by keys (every rank gathers all keys and values).
#include <algorithm>

#include "core/tensor.h"
#include "ops/attention/moves_cuda.h"
#include "ops/attention/pushed_cuda.h"
#include "ops/attention/share_cuda.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {

extern const KernelDef attention_all_to_all, attention_all_gather;

namespace {

using namespace attention;
using cuda::Layout;
using cuda::Moves;

constexpr std::size_t kHeads = 1, kRows = 2;

// All rows of this rank's heads.
class ByHeads final : public PreparedKernel {
 public:
  explicit ByHeads(const PrepareArgs& args) : spread_(args), mask_(spread_), p_(spread_.problem) {
    const int n = spread_.ranks;
    const auto bits_of = [](const Type& type) { return bits(type.dtype); };
    for (const std::size_t i : {kQ, kK, kV})
      moves_[i].emplace(Moves::Kind::heads, bits_of(args.call.operand(i)) / 8, shape_of(args.call.operand(i)),
                        i == kQ ? spread_.rows : spread_.columns);
    moves_[3].emplace(Moves::Kind::heads, bits_of(args.call.results[0]) / 8, shape_of(args.call.results[0]), spread_.rows);
    if (mask_.per_row)
      moves_[4].emplace(mask_.per_head ? Moves::Kind::heads : Moves::Kind::all, bits(p_.mask_dtype) / 8, mask_.dims, spread_.rows);
    p_.heads /= n;
    p_.kv_heads /= n;
    p_.rows = spread_.rows.extent;
    p_.columns = spread_.columns.extent;
    p_.q_steps = dense_steps(p_.heads, spread_.rows.padded(), p_.size);
    p_.k_steps = dense_steps(p_.kv_heads, spread_.columns.padded(), p_.size);
    p_.v_steps = dense_steps(p_.kv_heads, spread_.columns.padded(), p_.value_size);
    p_.out_steps = dense_steps(p_.heads, spread_.rows.padded(), p_.value_size);
    OpCall share = share_of(spread_.call, p_.heads, p_.kv_heads, p_.rows, p_.columns);
    if (mask_.present) describe_mask(share);
    attention_ = prepare_attention(static_cast<const cuda::CudaDevice&>(*args.device), share, p_);
    std::size_t staging = 0;
    for (std::size_t i = 0; i < 5; ++i) {
      if (!moves_[i]) continue;
      at_[i] = layout_.add(moves_[i]->whole_bytes());
      staging = std::max(staging, moves_[i]->staging_bytes());
    }
    at_staging_ = layout_.add(staging);
    at_rest_ = layout_.add(attention_->workspace_bytes());
  }

  std::size_t workspace_bytes() const override { return layout_.total(); }

  void run(const RunArgs& args) const override {
    std::byte *memory = args.workspace, *staging = memory + at_staging_, *out = memory + at_[3];
    const cuda::Exchange exchange = {*spread_.group, cuda::handle_of(args.stream), args.deadline};
    std::vector<const std::byte*> operands(args.operands.begin(), args.operands.end());
    for (const std::size_t i : {kQ, kK, kV}) {
      moves_[i]->collect(exchange, args.operands[i], staging, memory + at_[i]);
      operands[i] = memory + at_[i];
    }
    if (moves_[4]) {
      moves_[4]->collect(exchange, args.operands[kMask], staging, memory + at_[4]);
      operands[kMask] = memory + at_[4];
    } else if (mask_.per_head) {
      operands[kMask] += bytes(p_.mask_dtype, own_mask_offset_);
    }
    if (spread_.rows.extent != spread_.rows.padded())
      cuda::check(cudaMemsetAsync(out, 0, moves_[3]->whole_bytes(), exchange.stream), "clearing padding");
    attention_->run({operands, std::span(&out, 1), memory + at_rest_, args.stream, args.deadline});
    moves_[3]->spread(exchange, out, staging, args.results[0]);
  }

 private:
  void describe_mask(OpCall& share) {
    Shape lies = mask_.dims, means = mask_.dims;
    if (mask_.per_head) means[kHeads] /= spread_.ranks;
    if (mask_.per_row) {
      lies[kHeads] = means[kHeads];
      lies[kRows] = spread_.rows.padded();
      means[kRows] = p_.rows;
    } else if (mask_.per_head) {
      own_mask_offset_ = spread_.rank * means[kHeads] * row_major_strides(lies)[kHeads];
    }
    place_mask(p_, lies);
    if (means[kHeads] == 1) p_.mask_steps.head = 0;
    share.operands[kMask]->dims = {means.begin(), means.end()};
  }

  Spread spread_;
  MaskShape mask_;
  AttentionProblem p_;             // of this rank's heads over whole sequences, by position
  std::optional<Moves> moves_[5];  // q, k, v, the result, a mask with rows
  std::unique_ptr<PreparedKernel> attention_;
  Layout layout_;
  std::size_t at_[5] = {}, at_staging_ = 0, at_rest_ = 0;
  std::int64_t own_mask_offset_ = 0;
};

// All keys and values for this rank's rows.
class ByKeys final : public PreparedKernel {
 public:
  explicit ByKeys(const PrepareArgs& args) : spread_(args) {
    for (const std::size_t i : {kK, kV})
      moves_[i - kK].emplace(Moves::Kind::all, bits(args.call.operand(i).dtype) / 8, shape_of(args.call.operand(i)), spread_.columns);
    at_[0] = layout_.add(moves_[0]->whole_bytes());
    at_[1] = layout_.add(moves_[1]->whole_bytes());
    at_staging_ = layout_.add(std::max(moves_[0]->staging_bytes(), moves_[1]->staging_bytes()));
    AttentionProblem p = spread_.problem;
    p.k_steps = dense_steps(p.kv_heads, spread_.columns.padded(), p.size);
    p.v_steps = dense_steps(p.kv_heads, spread_.columns.padded(), p.value_size);
    std::size_t workspace = 0;
    for (const Segment& rows : spread_.rows.of(spread_.rank)) {
      shares_.push_back(
          make_share(spread_, p, rows, {0, 0, spread_.columns.extent}, false, static_cast<const cuda::CudaDevice&>(*args.device)));
      workspace = std::max(workspace, shares_.back().attention->workspace_bytes());
    }
    at_rest_ = layout_.add(workspace);
    out_bytes_ = bytes(p.dtype, element_count(shape_of(args.call.results[0])));
  }

  std::size_t workspace_bytes() const override { return layout_.total(); }

  void run(const RunArgs& args) const override {
    const cuda::Exchange exchange = {*spread_.group, cuda::handle_of(args.stream), args.deadline};
    std::byte *memory = args.workspace, *staging = memory + at_staging_;
    for (const std::size_t i : {kK, kV}) moves_[i - kK]->collect(exchange, args.operands[i], staging, memory + at_[i - kK]);
    if (spread_.rows.extent != spread_.rows.padded() && out_bytes_ > 0)
      cuda::check(cudaMemsetAsync(args.results[0], 0, out_bytes_, exchange.stream), "clearing padding");
    for (const Share& share : shares_) share.run(args, memory + at_[0], memory + at_[1], args.results, memory + at_rest_);
  }

 private:
  Spread spread_;
  std::optional<Moves> moves_[2];  // keys, values
  std::vector<Share> shares_;
  Layout layout_;
  std::size_t at_[2] = {}, at_staging_ = 0, at_rest_ = 0, out_bytes_ = 0;
};

}  // namespace

extern const KernelDef cuda_attention_all_to_all, cuda_attention_all_gather;
const KernelDef cuda_attention_all_to_all = {
    .name = "cuda_attention_all_to_all",
    .op = "Attention",
    .refuse =
        [](const OpCall& call) {
          const auto reason = attention_all_to_all.refuse(call);
          return reason ? reason : own_attention_refusal(call);
        },
    .prepare =
        [](const PrepareArgs& args) {
          if (auto pushed = prepare_pushed_attention(args, problem_of(args.call), {})) return pushed;
          return prepare_on_gpus<ByHeads>(args);
        },
    .rank = 1,
    .sent_bytes = [](const OpCall& call) { return attention_all_to_all.sent_bytes(call); },
    .device = "cuda",
};
const KernelDef cuda_attention_all_gather = {
    .name = "cuda_attention_all_gather",
    .op = "Attention",
    .refuse = [](const OpCall& call) -> std::optional<std::string> {
      if (auto reason = attention_all_gather.refuse(call)) return reason;
      if (call.has_operand(kQueryLengths)) return "lengths of queries are counted over the whole sequence";
      return own_attention_refusal(call);
    },
    .prepare = [](const PrepareArgs& args) { return prepare_on_gpus<ByKeys>(args); },
    .rank = 2,
    .sent_bytes = [](const OpCall& call) { return attention_all_gather.sent_bytes(call); },
    .device = "cuda",
};

}  // namespace tandem::kernels
