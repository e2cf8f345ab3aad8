#include "ops/attention/pushed_keys_cuda.h"

#include <algorithm>

#include "comm/peer/peer_group.h"
#include "core/tensor.h"
#include "ops/attention/beside_cuda.h"
#include "ops/attention/key_groups_cuda.h"
#include "ops/attention/lines_move_cuda.h"
#include "ops/attention/moves_cuda.h"
#include "ops/attention/share_cuda.h"
#include "ops/shape_rules.h"

namespace tandem::attention {
namespace {

constexpr double kGroupSeconds = 12e-6;

// A call of the room has an event for each group, and a last one: this rank has read what came, so that the next call may overwrite it.
class PushedKeys final : public PreparedKernel {
 public:
  PushedKeys(const PrepareArgs& args, Spread spread, KeyGroups groups, OperandBegins begins)
      : group_(dynamic_cast<peer::PeerGroup&>(*spread.group)), spread_(std::move(spread)), groups_(groups), begins_(begins) {
    const AttentionProblem& local = spread_.problem;
    element_ = bytes(local.dtype, 1);
    AttentionProblem p = local;  // of one group
    k_steps_ = p.k_steps = dense_steps(p.kv_heads, spread_.columns.padded(), p.size);
    v_steps_ = p.v_steps = dense_steps(p.kv_heads, spread_.columns.padded(), p.value_size);
    at_values_ = aligned_size(static_cast<std::size_t>(p.batch * k_steps_.batch) * element_);
    there_bytes_ = at_values_ + aligned_size(static_cast<std::size_t>(p.batch * v_steps_.batch) * element_);
    p.heads /= groups_.count;
    p.kv_heads /= groups_.count;
    heads_ = p.heads, kv_heads_ = p.kv_heads;
    for (const Segment& rows : spread_.rows.of(spread_.rank)) {
      shares_.push_back(make_share(args, spread_, p, rows, {0, 0, spread_.columns.extent}, Gives::result));
      workspace_bytes_ = std::max(workspace_bytes_, shares_.back().attention->workspace_bytes());
    }
    out_bytes_ = bytes(local.dtype, element_count(shape_of(args.call.results[0])));
  }

  std::size_t workspace_bytes() const override { return workspace_bytes_; }

  void meet(Deadline deadline) const override {
    if (!room_) room_ = group_.room(there_bytes_, 0, deadline);
  }

  void run(const RunArgs& args) const override {
    group_.throw_if_failed();
    meet(args.deadline);
    const cuda::Turn turn = {args, group_.view(args.deadline.limit()), room_->view()};
    const cudaStream_t main = cuda::handle_of(args.stream), beside = cuda::handle_of(*args.auxiliary[0]);
    beside_.begin(main, beside);
    if (spread_.rows.extent != spread_.rows.padded() && out_bytes_ > 0)
      cuda::check(cudaMemsetAsync(args.results[0], 0, out_bytes_, main), "clearing padding");
    push(turn, 0, 1, beside);
    pushed_.order(beside, main);  // attention would take the multiprocessors that the first push needs
    push(turn, 1, groups_.count - 1, beside);
    for (int g = 0; g < groups_.count; ++g) {
      cuda::launch_await(turn.view, turn.room, g, main);
      attend(turn, g);
    }
    end(turn, main);
    beside_.end(main, beside);
    cuda::check_launch("attention over ranks");
  }

 private:
  std::int64_t wide(std::int64_t elements) const { return elements * static_cast<std::int64_t>(element_); }
  cuda::LineSteps wide(const Steps& steps) const { return {wide(steps.batch), wide(steps.head), wide(steps.row)}; }

  // This rank's rows of groups from `first` on, to the same place at all ranks. One kernel for several groups, as in pushed_cuda.cpp.
  void push(const cuda::Turn& turn, int first, int count, cudaStream_t stream) const {
    const Blocks& blocks = spread_.columns;
    const std::int64_t begin = spread_.rank * (blocks.zigzag ? blocks.local / 2 : blocks.local);
    cuda::LineMoves work;
    work.count = 2;
    work.groups = count;
    for (const std::size_t i : {kK, kV}) {
      const Steps &from = i == kK ? spread_.problem.k_steps : spread_.problem.v_steps, &to = i == kK ? k_steps_ : v_steps_;
      const std::int64_t size = i == kK ? spread_.problem.size : spread_.problem.value_size;
      cuda::LineMove& m = work.moves[i - kK];
      m = {.batch = static_cast<int>(spread_.problem.batch),
           .heads = static_cast<int>(kv_heads_),
           .rows = static_cast<int>(blocks.local),
           .bytes = static_cast<int>(wide(size)),
           .from_steps = wide(from),
           .to_steps = wide(to),
           .from_group = wide(kv_heads_ * from.head),
           .to_group = wide(kv_heads_ * to.head),
           .cut = static_cast<int>(blocks.zigzag ? blocks.local / 2 : blocks.local)};
      for (int peer = 0; peer < spread_.ranks; ++peer) {
        m.from[peer] = reinterpret_cast<const char*>(turn.args.operands[i] + begins_[i]) + first * m.from_group;
        m.to[peer] = turn.room.there[peer] + (i == kK ? 0 : at_values_) + wide(begin * to.row) + first * m.to_group;
        // The second half of the rows, where these are two pieces of the sequence.
        m.to_jump[peer] = blocks.zigzag ? wide((blocks.ranks - 1 - spread_.rank) * blocks.local * to.row) : 0;
      }
    }
    work.announces = first;
    work.begins = first == 0;
    work.blocks = first == 0 ? group_.blocks() : std::min(groups_.blocks, group_.blocks());
    cuda::launch_line_moves(turn.view, turn.room, work, stream);
  }

  void attend(const cuda::Turn& turn, int g) const {
    HeadsFrom from(turn.args, spread_, g * heads_);
    from.operands[kQ] += begins_[kQ];
    const auto* keys = reinterpret_cast<const std::byte*>(turn.room.there[spread_.rank]) + wide(g * kv_heads_ * k_steps_.head);
    const auto* values =
        reinterpret_cast<const std::byte*>(turn.room.there[spread_.rank]) + at_values_ + wide(g * kv_heads_ * v_steps_.head);
    for (const Share& share : shares_) share.run(from.run_args(turn.args), keys, values, from.results, turn.args.workspace);
  }

  // Two kernels, for one waits before it announces.
  void end(const cuda::Turn& turn, cudaStream_t stream) const {
    cuda::LineMoves read;
    read.announces = groups_.count;
    cuda::launch_line_moves(turn.view, turn.room, read, stream);
    cuda::LineMoves all_read;
    all_read.awaits = groups_.count;
    all_read.awaited = 1;
    all_read.ends = true;
    cuda::launch_line_moves(turn.view, turn.room, all_read, stream);
  }

  peer::PeerGroup& group_;
  Spread spread_;  // its problem: how this rank holds everything
  KeyGroups groups_;
  OperandBegins begins_;
  Steps k_steps_, v_steps_;        // of all heads in the room
  std::int64_t heads_, kv_heads_;  // of a group
  std::vector<Share> shares_;      // of one group, by segments of this rank's rows
  cuda::Beside beside_;            // of pushes
  cuda::Moment pushed_;
  std::size_t element_ = 0, at_values_ = 0, there_bytes_ = 0, workspace_bytes_ = 0, out_bytes_ = 0;
  mutable std::shared_ptr<peer::Room> room_;
};

}  // namespace

std::unique_ptr<PreparedKernel> prepare_pushed_keys(const PrepareArgs& args, const AttentionProblem& problem, OperandBegins begins) {
  if (!dynamic_cast<peer::PeerGroup*>(args.group)) return nullptr;
  Spread spread(args);
  if (spread.ranks == 1) return nullptr;
  const std::int64_t longest = spread.columns.local * std::max(problem.size, problem.value_size);
  if (bytes(problem.dtype, longest) > static_cast<std::size_t>(cuda::kMostLineBytes)) return nullptr;
  spread.problem = problem;
  auto& device = static_cast<cuda::CudaDevice&>(*args.device);
  const KeyGroups groups = key_groups_of(spread, kGroupSeconds, device.multiprocessors(), peer::kRoomEvents - 1);
  if (groups.count == 1) return nullptr;
  return std::make_unique<PushedKeys>(args, std::move(spread), groups, begins);
}

}  // namespace tandem::attention
