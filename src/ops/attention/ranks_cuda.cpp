// Attention over a split sequence on GPUs: the attention of one device, with exchanges of the group around it. By heads (every rank trades
// its rows of all heads for all rows of its heads) or by keys (every rank gathers all keys and values).
#include <algorithm>

#include "core/tensor.h"
#include "ops/attention/beside_cuda.h"
#include "ops/attention/key_groups_cuda.h"
#include "ops/attention/moves_cuda.h"
#include "ops/attention/pushed_cuda.h"
#include "ops/attention/pushed_keys_cuda.h"
#include "ops/attention/share_cuda.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {

extern const KernelDef attention_all_to_all, attention_all_gather;

namespace {

using namespace attention;
using cuda::Layout;
using cuda::Moves;

constexpr std::size_t kHeads = 1, kRows = 2;
constexpr int kMostGroups = 16;  // of kv heads, by collectives

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
    attention_ = prepare_attention(args, share, p_);
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

// All keys and values for this rank's rows; in groups of kv heads, those of the next one travel beside the attention to one.
class ByKeys final : public PreparedKernel {
 public:
  explicit ByKeys(const PrepareArgs& args, int groups = 1) : spread_(args), groups_(groups) {
    AttentionProblem p = spread_.problem;
    p.heads /= groups_;
    p.kv_heads /= groups_;
    heads_ = p.heads;
    for (const std::size_t i : {kK, kV}) add_moves(args.call.operand(i), i - kK);
    p.k_steps = dense_steps(p.kv_heads, spread_.columns.padded(), p.size);
    p.v_steps = dense_steps(p.kv_heads, spread_.columns.padded(), p.value_size);
    std::size_t workspace = 0;
    for (const Segment& rows : spread_.rows.of(spread_.rank)) {
      shares_.push_back(make_share(args, spread_, p, rows, {0, 0, spread_.columns.extent}, Gives::result));
      workspace = std::max(workspace, shares_.back().attention->workspace_bytes());
    }
    at_staging_ = layout_.add(std::max(moves_[0]->staging_bytes(), moves_[1]->staging_bytes()));
    at_rest_ = layout_.add(workspace);
    out_bytes_ = bytes(p.dtype, element_count(shape_of(args.call.results[0])));
  }

  std::size_t workspace_bytes() const override { return layout_.total(); }

  // What travels uses the staging one group after the other, in its own stream, which begins where the kernel's stands; each group has its
  // own place for what came.
  void run(const RunArgs& args) const override {
    const cudaStream_t main = cuda::handle_of(args.stream), beside = groups_ > 1 ? cuda::handle_of(*args.auxiliary[0]) : main;
    if (groups_ > 1) begun_.order(main, beside);
    if (spread_.rows.extent != spread_.rows.padded() && out_bytes_ > 0)
      cuda::check(cudaMemsetAsync(args.results[0], 0, out_bytes_, main), "clearing padding");
    for (int g = 0; g < groups_; ++g) {
      for (const std::size_t i : {kK, kV}) collect({*spread_.group, beside, args.deadline}, args, i, g);
      if (groups_ > 1) arrived_.order(beside, main);  // the last one is where the streams join
      const HeadsFrom from(args, spread_, g * heads_);
      for (const Share& share : shares_)
        share.run(from.run_args(args), come(args, 0, g), come(args, 1, g), from.results, args.workspace + at_rest_);
    }
  }

 private:
  void add_moves(const Type& type, std::size_t which) {
    const int element = bits(type.dtype) / 8;
    Shape dims = shape_of(type);
    const std::int64_t all = dims[1], head = dims[2] * dims[3];
    dims[1] /= groups_;
    moves_[which].emplace(Moves::Kind::all, element, dims, spread_.columns);
    group_bytes_[which] = static_cast<std::size_t>(dims[1] * head) * static_cast<std::size_t>(element);
    at_[which] = layout_.add(static_cast<std::size_t>(groups_) * aligned_size(moves_[which]->whole_bytes()));
    if (groups_ == 1 || dims[0] == 1) return;
    packs_[which].emplace(element, std::vector<cuda::CopyAxis>{{dims[0], all * head, dims[1] * head}, {dims[1] * head, 1, 1}});
    at_packed_[which] = layout_.add(static_cast<std::size_t>(dims[0]) * group_bytes_[which]);
  }

  // A group of heads of one operand, of all ranks.
  void collect(const cuda::Exchange& exchange, const RunArgs& args, std::size_t i, int g) const {
    const std::size_t which = i - kK;
    const std::byte* from = args.operands[i] + static_cast<std::size_t>(g) * group_bytes_[which];
    if (packs_[which]) {
      std::byte* const packed = args.workspace + at_packed_[which];
      packs_[which]->launch(from, packed, exchange.stream);
      from = packed;
    }
    moves_[which]->collect(exchange, from, args.workspace + at_staging_, come(args, which, g));
  }

  std::byte* come(const RunArgs& args, std::size_t which, int g) const {
    return args.workspace + at_[which] + static_cast<std::size_t>(g) * aligned_size(moves_[which]->whole_bytes());
  }

  Spread spread_;
  int groups_;
  std::int64_t heads_ = 0;                     // of a group
  std::optional<Moves> moves_[2];              // keys, values
  std::optional<cuda::StridedCopy> packs_[2];  // the heads of a group, where they do not lie together
  std::vector<Share> shares_;
  Layout layout_;
  std::size_t at_[2] = {}, at_packed_[2] = {}, group_bytes_[2] = {}, at_staging_ = 0, at_rest_ = 0, out_bytes_ = 0;
  cuda::Moment begun_, arrived_;
};

// Seconds that one more group costs where it goes by collectives: two of them, and two copies.
constexpr double kGroupSeconds = 40e-6;

std::unique_ptr<PreparedKernel> prepare_in_groups(const PrepareArgs& args) {
  if (!args.group || args.group->backend() == "shm") return prepare_on_gpus<ByKeys>(args);
  const int multiprocessors = static_cast<cuda::CudaDevice&>(*args.device).multiprocessors();
  return std::make_unique<ByKeys>(args, key_groups_of(Spread(args), kGroupSeconds, multiprocessors, kMostGroups).count);
}

std::optional<std::string> refuse_by_keys(const OpCall& call) {
  if (auto reason = attention_all_gather.refuse(call)) return reason;
  return own_attention_refusal(call);
}

}  // namespace

extern const KernelDef cuda_attention_all_to_all, cuda_attention_all_gather, cuda_attention_all_gather_groups;
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
    .auxiliary_streams = 2,  // for pushes, and for every second group
};
const KernelDef cuda_attention_all_gather = {
    .name = "cuda_attention_all_gather",
    .op = "Attention",
    .refuse = refuse_by_keys,
    .prepare = [](const PrepareArgs& args) { return prepare_on_gpus<ByKeys>(args); },
    .rank = 3,
    .sent_bytes = [](const OpCall& call) { return attention_all_gather.sent_bytes(call); },
    .device = "cuda",
};
const KernelDef cuda_attention_all_gather_groups = {
    .name = "cuda_attention_all_gather_groups",
    .op = "Attention",
    .refuse = [](const OpCall& call) -> std::optional<std::string> {
      if (auto reason = refuse_by_keys(call)) return reason;
      const Dim& heads = call.operand(kK).dims[1];
      if (heads.is_constant() && heads.constant() < 2) return "one kv head makes no groups";
      return std::nullopt;
    },
    .prepare =
        [](const PrepareArgs& args) {
          if (auto pushed = prepare_pushed_keys(args, problem_of(args.call), {})) return pushed;
          return prepare_in_groups(args);
        },
    .rank = 2,
    .sent_bytes = [](const OpCall& call) { return attention_all_gather.sent_bytes(call); },
    .device = "cuda",
    .auxiliary_streams = 1,
};

}  // namespace tandem::kernels
