#include "ops/attention/pushed_cuda.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "comm/peer/peer_group.h"
#include "core/tensor.h"
#include "ops/attention/beside_cuda.h"
#include "ops/attention/lines_move_cuda.h"
#include "ops/attention/moves_cuda.h"
#include "ops/attention/share_cuda.h"
#include "ops/shape_rules.h"

namespace tandem::attention {
namespace {

// Bytes that one rank pushes: fewer are not worth several kernels.
constexpr std::int64_t kFewBytes = 4 << 20;

// A rank's heads go in groups, so that pushes of one group go on beside the attention to another; and these in one stream or, taking turns,
// in two, where multiprocessors that are through with one group go on with the next.
struct Schedule {
  int groups = 1, streams = 1;
  int blocks = 4;      // of the pushes beside attention: enough to be ahead of it, and no more than a group leaves that fills the GPU once
  bool apart = false;  // a kernel for the pushes of each group
};

// What the parts of an attention take, roughly, on an H200: rates per second.
constexpr double kOperations = 650e12, kPushed = 300e9, kKernels = 12e-6;  // the last: seconds that one more group costs
constexpr double kKernelsOnEnd = 4e-6;   // the same where a group starts on each multiprocessor that the one before leaves
constexpr double kTwoAtOnce = 0.985;     // of the rate, for two groups that share caches
constexpr std::int64_t kTileRows = 128;  // of the queries, that a block of cuDNN's kernels attends for

// `p`: of all heads of a rank.
Schedule schedule_of(const AttentionProblem& p, bool causal, std::int64_t pushed_bytes, int multiprocessors) {
  Schedule best;
  if (pushed_bytes < kFewBytes) return best;
  const double tiles = static_cast<double>(p.batch * p.heads * ((p.rows + kTileRows - 1) / kTileRows)), at_once = multiprocessors;
  const double operations =
      2.0 * static_cast<double>(p.batch * p.heads * p.rows) * static_cast<double>(p.columns * (p.size + p.value_size)) / (causal ? 2 : 1);
  const auto filled = [&](double some) { return some / (std::ceil(some / at_once) * at_once); };
  double least = std::numeric_limits<double>::infinity();
  for (std::int64_t groups = 1; groups <= p.kv_heads && 2 * groups <= peer::kRoomEvents; ++groups)
    for (int streams = 1; streams <= (groups > 1 ? 2 : 1); ++streams) {
      // Causal tiles are uneven: without others at the end of a group, multiprocessors wait for the longest.
      if (p.kv_heads % groups != 0 || (causal && groups > 1 && streams == 1)) continue;
      const double some = tiles / static_cast<double>(groups);
      const bool on_end = some <= at_once && streams == 2 && !causal;  // each multiprocessor has one tile of every group
      const double rate = kOperations * (streams == 2 && !on_end ? kTwoAtOnce * filled(tiles) : filled(some));
      const double seconds = operations / rate + static_cast<double>(pushed_bytes) / kPushed / static_cast<double>(groups) +
                             (on_end ? kKernelsOnEnd : kKernels) * static_cast<double>(groups);
      if (seconds >= least) continue;
      least = seconds;
      best = {static_cast<int>(groups), streams, streams == 2 && !on_end ? 8 : 4, on_end};
    }
  return best;
}

// Rows from the half of a rank's block on lie so many further in the whole sequence than the first half suggests.
std::int64_t jump_of(const Blocks& blocks, int rank) { return blocks.zigzag ? (blocks.ranks - 1 - rank) * blocks.local : 0; }
std::int64_t first_of(const Blocks& blocks, int rank) { return rank * (blocks.zigzag ? blocks.local / 2 : blocks.local); }

class Pushed final : public PreparedKernel {
 public:
  Pushed(const PrepareArgs& args, const Spread& spread, const AttentionProblem& local, OperandBegins begins)
      : group_(dynamic_cast<peer::PeerGroup&>(*spread.group)), spread_(spread), mask_(spread), local_(local), p_(local), begins_(begins) {
    auto& device = static_cast<cuda::CudaDevice&>(*args.device);
    element_ = bytes(p_.dtype, 1);
    p_.heads /= spread_.ranks;
    p_.kv_heads /= spread_.ranks;
    p_.rows = spread_.rows.extent;
    p_.columns = spread_.columns.extent;
    place_operands();
    const std::int64_t pushed = static_cast<std::int64_t>(there_bytes_ + out_bytes_) / spread_.ranks * (spread_.ranks - 1);
    const Schedule schedule = schedule_of(p_, args.call.attributes.text("causal") != "none", pushed, device.multiprocessors());
    groups_ = schedule.groups;
    came_ = std::make_unique<cuda::Moment[]>(static_cast<std::size_t>(groups_));
    apart_ = schedule.apart;
    few_ = schedule.blocks;
    p_.heads /= groups_;
    p_.kv_heads /= groups_;
    OpCall share = share_of(spread_.call, p_.heads, p_.kv_heads, p_.rows, p_.columns);
    if (mask_.present) describe_mask(share);
    attention_ = prepare_attention(args, share, p_);
    for (int i = 0; i < schedule.streams; ++i) at_rest_.push_back(layout_.add(attention_->workspace_bytes()));
    takes_turns_ = schedule.streams > 1;
    back_steps_ = dense_steps(local_.heads, spread_.rows.local, p_.value_size);
    back_bytes_ = static_cast<std::size_t>(p_.batch * back_steps_.batch) * element_;
  }

  std::size_t workspace_bytes() const override { return layout_.total(); }

  void meet(Deadline deadline) const override {
    if (!room_) room_ = group_.room(there_bytes_, back_bytes_, deadline);
  }

  void run(const RunArgs& args) const override {
    group_.throw_if_failed();
    meet(args.deadline);
    const cuda::Turn turn = {args, group_.view(args.deadline.limit()), room_->view()};
    const cudaStream_t main = cuda::handle_of(args.stream);
    if (spread_.rows.extent != spread_.rows.padded() && out_bytes_ > 0)
      cuda::check(cudaMemsetAsync(args.workspace, 0, out_bytes_, main), "clearing padding");
    const cudaStream_t beside = groups_ > 1 ? cuda::handle_of(*args.auxiliary[0]) : main;
    if (groups_ > 1) beside_.begin(main, beside);
    push_first_operands(turn, beside);
    if (groups_ > 1) push_other_operands(turn, beside);
    for (int g = 0; g < groups_; ++g) {
      Stream& stream = takes_turns_ && g % 2 == 1 ? *args.auxiliary[1] : args.stream;
      await_operands(turn, g, cuda::handle_of(stream));
      attend(turn, g, stream);
      if (groups_ > 1) attended_.order(cuda::handle_of(stream), beside);
      exchange_result(turn, g, beside);
    }
    if (groups_ > 1) beside_.end(main, beside);
    cuda::check_launch("attention over ranks");
  }

 private:
  // Dense per head and whole: q, k and v in the room, the result in the workspace.
  void place_operands() {
    const auto area = [](std::size_t bytes, std::size_t& total) { return std::exchange(total, total + aligned_size(bytes)); };
    const std::int64_t rows = spread_.rows.padded(), columns = spread_.columns.padded();
    p_.q_steps = dense_steps(p_.heads, rows, p_.size);
    p_.k_steps = dense_steps(p_.kv_heads, columns, p_.size);
    p_.v_steps = dense_steps(p_.kv_heads, columns, p_.value_size);
    p_.out_steps = dense_steps(p_.heads, rows, p_.value_size);
    const auto size_of = [&](const Steps& steps) { return static_cast<std::size_t>(p_.batch * steps.batch) * element_; };
    at_[kQ] = area(size_of(p_.q_steps), there_bytes_);
    at_[kK] = area(size_of(p_.k_steps), there_bytes_);
    at_[kV] = area(size_of(p_.v_steps), there_bytes_);
    out_bytes_ = size_of(p_.out_steps);
    layout_.add(out_bytes_);
  }

  void describe_mask(OpCall& share) {
    Shape means = mask_.dims;
    place_mask(p_, mask_.dims);
    if (mask_.per_head) means[1] = p_.heads;
    share.operands[kMask]->dims = {means.begin(), means.end()};
  }

  std::int64_t wide(std::int64_t elements) const { return elements * static_cast<std::int64_t>(element_); }
  cuda::LineSteps wide(const Steps& steps) const { return {wide(steps.batch), wide(steps.head), wide(steps.row)}; }
  std::int64_t group_head(const Steps& steps, int g, bool kv) const { return wide(g * (kv ? p_.kv_heads : p_.heads) * steps.head); }

  cuda::LineMove lines(const Blocks& blocks, std::int64_t heads, std::int64_t size, const Steps& from, const Steps& to) const {
    return {.batch = static_cast<int>(p_.batch),
            .heads = static_cast<int>(heads),
            .rows = static_cast<int>(blocks.local),
            .bytes = static_cast<int>(wide(size)),
            .from_steps = wide(from),
            .to_steps = wide(to),
            .cut = static_cast<int>(blocks.zigzag ? blocks.local / 2 : blocks.local)};
  }

  // The first and the last pushes have nothing to go on beside.
  int blocks_of(bool alone) const { return alone ? group_.blocks() : std::min(few_, group_.blocks()); }

  // Those of the first group, from all ranks: attention to it may begin.
  void push_first_operands(const cuda::Turn& turn, cudaStream_t stream) const {
    cuda::LineMoves work = operands_of(turn, 0, 1);
    work.begins = true;
    work.awaits = 0, work.awaited = 1;
    cuda::launch_line_moves(turn.view, turn.room, work, stream);
    if (groups_ > 1) came_[0].mark(stream);
  }

  // One kernel for several groups keeps its multiprocessors: at its end, and before another began, attention would take them. Where it has
  // no use for them, a kernel for each, behind which the peers' are awaited too, so that nothing waits between attentions.
  void push_other_operands(const cuda::Turn& turn, cudaStream_t stream) const {
    if (!apart_) return cuda::launch_line_moves(turn.view, turn.room, operands_of(turn, 1, groups_ - 1), stream);
    for (int g = 1; g < groups_; ++g) {
      cuda::LineMoves work = operands_of(turn, g, 1);
      work.awaits = g, work.awaited = 1;
      cuda::launch_line_moves(turn.view, turn.room, work, stream);
      came_[g].mark(stream);
    }
  }

  void await_operands(const cuda::Turn& turn, int g, cudaStream_t stream) const {
    if (groups_ == 1) return;
    if (apart_ || g < 2) came_[apart_ ? g : 0].await(stream);
    if (!apart_ && g > 0) cuda::launch_await(turn.view, turn.room, g, stream);
  }

  cuda::LineMoves operands_of(const cuda::Turn& turn, int first, int count) const {
    const Steps* from[] = {&local_.q_steps, &local_.k_steps, &local_.v_steps};
    const Steps* to[] = {&p_.q_steps, &p_.k_steps, &p_.v_steps};
    cuda::LineMoves work;
    work.count = 3;
    work.groups = count;
    for (const std::size_t i : {kQ, kK, kV}) {
      const Blocks& blocks = i == kQ ? spread_.rows : spread_.columns;
      const std::int64_t heads = i == kQ ? p_.heads : p_.kv_heads, row = wide(to[i]->row);
      cuda::LineMove& m = work.moves[i] = lines(blocks, heads, i == kV ? p_.value_size : p_.size, *from[i], *to[i]);
      m.from_group = wide(heads * from[i]->head);
      m.to_group = wide(heads * to[i]->head);
      for (int peer = 0; peer < spread_.ranks; ++peer) {
        m.from[peer] =
            reinterpret_cast<const char*>(turn.args.operands[i] + begins_[i]) + wide((peer * groups_ + first) * heads * from[i]->head);
        m.to[peer] = turn.room.there[peer] + at_[i] + group_head(*to[i], first, i != kQ) + first_of(blocks, spread_.rank) * row;
        m.to_jump[peer] = jump_of(blocks, spread_.rank) * row;
      }
    }
    work.announces = first;
    work.blocks = blocks_of(first == 0);
    return work;
  }

  void attend(const cuda::Turn& turn, int g, Stream& stream) const {
    std::vector<const std::byte*> operands(turn.args.operands.begin(), turn.args.operands.end());
    const auto arrived = [&](std::size_t i, const Steps& steps) {
      return reinterpret_cast<const std::byte*>(turn.room.there[spread_.rank]) + at_[i] + group_head(steps, g, i != kQ);
    };
    operands[kQ] = arrived(kQ, p_.q_steps);
    operands[kK] = arrived(kK, p_.k_steps);
    operands[kV] = arrived(kV, p_.v_steps);
    if (mask_.per_head) operands[kMask] += bytes(p_.mask_dtype, (spread_.rank * groups_ + g) * p_.heads * p_.mask_steps.head);
    std::byte* const out = turn.args.workspace + group_head(p_.out_steps, g, false);
    attention_->run({operands, std::span(&out, 1), turn.args.workspace + at_rest_[static_cast<std::size_t>(g) % at_rest_.size()], stream,
                     turn.args.deadline});
  }

  // Rows of this rank's heads to their ranks, and then those of the peers' heads to where the result lies: by one kernel for both, which
  // holds few multiprocessors while a peer is late.
  void exchange_result(const cuda::Turn& turn, int g, cudaStream_t stream) const {
    cuda::LineMoves work;
    work.count = 2;
    work.moves[0] = lines(spread_.rows, p_.heads, p_.value_size, p_.out_steps, back_steps_);
    work.moves[0].with = cuda::LineMove::With::peers;
    work.moves[1] = lines(spread_.rows, p_.heads, p_.value_size, p_.out_steps, local_.out_steps);
    work.moves[1].with = cuda::LineMove::With::itself;
    work.after = 1;
    work.moves[2] = lines(spread_.rows, p_.heads, p_.value_size, back_steps_, local_.out_steps);
    work.moves[2].with = cuda::LineMove::With::peers;
    char* const result = reinterpret_cast<char*>(turn.args.results[0]);
    const std::int64_t row = wide(p_.out_steps.row);
    for (int peer = 0; peer < spread_.ranks; ++peer) {
      for (const int i : {0, 1}) {
        work.moves[i].from[peer] =
            reinterpret_cast<const char*>(turn.args.workspace) + group_head(p_.out_steps, g, false) + first_of(spread_.rows, peer) * row;
        work.moves[i].from_jump[peer] = jump_of(spread_.rows, peer) * row;
      }
      work.moves[0].to[peer] = turn.room.back[peer] + result_head(back_steps_, spread_.rank, g);
      work.moves[1].to[peer] = result + result_head(local_.out_steps, spread_.rank, g);
      work.moves[2].from[peer] = turn.room.back[spread_.rank] + result_head(back_steps_, peer, g);
      work.moves[2].to[peer] = result + result_head(local_.out_steps, peer, g);
    }
    work.announces = groups_ + g;
    work.awaits = groups_ + g, work.awaited = 1;
    work.ends = g == groups_ - 1;
    work.blocks = blocks_of(work.ends);
    cuda::launch_line_moves(turn.view, turn.room, work, stream);
  }

  // Bytes before the first of the heads that `rank` computes in a group.
  std::int64_t result_head(const Steps& steps, int rank, int g) const { return wide((rank * groups_ + g) * p_.heads * steps.head); }

  peer::PeerGroup& group_;
  Spread spread_;
  MaskShape mask_;
  AttentionProblem local_;  // all heads, as this rank holds them
  AttentionProblem p_;      // a group of this rank's heads over whole sequences, by position
  Steps back_steps_;        // of the results of peers' heads for this rank's rows
  OperandBegins begins_;
  std::unique_ptr<PreparedKernel> attention_;
  cuda::Layout layout_;  // the result of this rank's heads first
  std::size_t element_ = 0, at_[3] = {}, there_bytes_ = 0, back_bytes_ = 0, out_bytes_ = 0;
  int groups_ = 1, few_ = 1;
  bool apart_ = false;
  std::vector<std::size_t> at_rest_;  // the attention's workspace, by stream
  bool takes_turns_ = false;          // every second group is attended to in another stream
  cuda::Beside beside_;               // of pushes
  cuda::Moment attended_;
  std::unique_ptr<cuda::Moment[]> came_;  // the operands of a group, where that is awaited beside attention
  mutable std::shared_ptr<peer::Room> room_;
};

}  // namespace

std::unique_ptr<PreparedKernel> prepare_pushed_attention(const PrepareArgs& args, const AttentionProblem& problem, OperandBegins begins) {
  if (!dynamic_cast<peer::PeerGroup*>(args.group)) return nullptr;
  const Spread spread(args);
  if (spread.ranks == 1 || MaskShape(spread).per_row) return nullptr;  // rows of a mask go with the group's collectives
  const std::int64_t longest = std::max(spread.rows.local, spread.columns.local) * std::max(problem.size, problem.value_size);
  if (bytes(problem.dtype, longest) > static_cast<std::size_t>(cuda::kMostLineBytes)) return nullptr;
  return std::make_unique<Pushed>(args, spread, problem, begins);
}

}  // namespace tandem::attention
