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
  int blocks = 4;  // of the pushes beside attention, which needs the other multiprocessors
};

// What the parts of an attention take, roughly, on an H200: rates per second.
constexpr double kOperations = 650e12, kPushed = 300e9, kKernels = 12e-6;  // the last: seconds that one more group costs
constexpr double kTwoAtOnce = 0.985;                                       // of the rate, for two groups that share caches
constexpr std::int64_t kTileRows = 128;                                    // of the queries, that a block of cuDNN's kernels attends for

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
      const double rate = kOperations * (streams == 2 ? kTwoAtOnce * filled(tiles) : filled(tiles / static_cast<double>(groups)));
      const double seconds = operations / rate + static_cast<double>(pushed_bytes) / kPushed / static_cast<double>(groups) +
                             kKernels * static_cast<double>(groups);
      if (seconds >= least) continue;
      least = seconds;
      // Few enough to leave a group that fills the GPU once all the multiprocessors that it needs.
      const bool once = tiles / static_cast<double>(groups) <= at_once;
      best = {static_cast<int>(groups), streams, streams == 2 ? 12 : once ? 4 : 8};
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
    few_ = schedule.blocks;
    p_.heads /= groups_;
    p_.kv_heads /= groups_;
    OpCall share = share_of(spread_.call, p_.heads, p_.kv_heads, p_.rows, p_.columns);
    if (mask_.present) describe_mask(share);
    attention_ = prepare_attention(args, share, p_);
    for (int i = 0; i < schedule.streams; ++i) at_rest_.push_back(layout_.add(attention_->workspace_bytes()));
    takes_turns_ = schedule.streams > 1;
    back_bytes_ = static_cast<std::size_t>(p_.batch * local_.heads * spread_.rows.local * p_.value_size) * element_;
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
    Stream* const other = takes_turns_ ? args.auxiliary[1] : nullptr;
    if (groups_ > 1) beside_.begin(main, beside);
    push_operands(turn, 0, 1, beside);
    if (groups_ > 1) {
      pushed_.mark(beside);
      push_operands(turn, 1, groups_ - 1, beside);
      pushed_.await(main);
      if (other) pushed_.await(cuda::handle_of(*other));
    }
    for (int g = 0; g < groups_; ++g) {
      Stream& stream = other && g % 2 == 1 ? *other : args.stream;
      cuda::launch_await(turn.view, turn.room, g, cuda::handle_of(stream));
      attend(turn, g, stream);
      if (groups_ > 1) attended_.order(cuda::handle_of(stream), beside);
      push_result(turn, g, beside);
    }
    take_results(turn, beside);
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

  // One kernel for several groups keeps its multiprocessors: at its end, and before another began, attention would take them.
  void push_operands(const cuda::Turn& turn, int first, int count, cudaStream_t stream) const {
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
    work.begins = first == 0;
    work.blocks = blocks_of(first == 0);
    cuda::launch_line_moves(turn.view, turn.room, work, stream);
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

  // At this rank straight into the result, at peers into memory that lies alike.
  void push_result(const cuda::Turn& turn, int g, cudaStream_t stream) const {
    cuda::LineMoves work;
    work.count = 1;
    cuda::LineMove& m = work.moves[0] = lines(spread_.rows, p_.heads, p_.value_size, p_.out_steps, local_.out_steps);
    const std::int64_t row = wide(p_.out_steps.row);
    for (int peer = 0; peer < spread_.ranks; ++peer) {
      m.from[peer] =
          reinterpret_cast<const char*>(turn.args.workspace) + group_head(p_.out_steps, g, false) + first_of(spread_.rows, peer) * row;
      m.from_jump[peer] = jump_of(spread_.rows, peer) * row;
      m.to[peer] =
          (peer == spread_.rank ? reinterpret_cast<char*>(turn.args.results[0]) : turn.room.back[peer]) + result_head(spread_.rank, g);
    }
    work.announces = groups_ + g;
    work.blocks = blocks_of(g == groups_ - 1);
    cuda::launch_line_moves(turn.view, turn.room, work, stream);
  }

  // Of all groups, at the end: multiprocessors that wait for peers before would be missed.
  void take_results(const cuda::Turn& turn, cudaStream_t stream) const {
    cuda::LineMoves work;
    work.count = 1;
    cuda::LineMove& m = work.moves[0] = lines(spread_.rows, groups_ * p_.heads, p_.value_size, local_.out_steps, local_.out_steps);
    for (int peer = 0; peer < spread_.ranks; ++peer) {
      m.from[peer] = turn.room.back[spread_.rank] + result_head(peer, 0);
      m.to[peer] = reinterpret_cast<char*>(turn.args.results[0]) + result_head(peer, 0);
    }
    work.own = false;
    work.awaits = groups_;
    work.awaited = groups_;
    work.ends = true;
    work.blocks = group_.blocks();
    cuda::launch_line_moves(turn.view, turn.room, work, stream);
  }

  // Bytes before the first of the heads that `rank` computes in a group.
  std::int64_t result_head(int rank, int g) const { return wide((rank * groups_ + g) * p_.heads * local_.out_steps.head); }

  peer::PeerGroup& group_;
  Spread spread_;
  MaskShape mask_;
  AttentionProblem local_;  // all heads, as this rank holds them
  AttentionProblem p_;      // a group of this rank's heads over whole sequences, by position
  OperandBegins begins_;
  std::unique_ptr<PreparedKernel> attention_;
  cuda::Layout layout_;  // the result of this rank's heads first
  std::size_t element_ = 0, at_[3] = {}, there_bytes_ = 0, back_bytes_ = 0, out_bytes_ = 0;
  int groups_ = 1, few_ = 1;
  std::vector<std::size_t> at_rest_;  // the attention's workspace, by stream
  bool takes_turns_ = false;          // every second group is attended to in another stream
  cuda::Beside beside_;               // of pushes
  cuda::Moment pushed_, attended_;
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
