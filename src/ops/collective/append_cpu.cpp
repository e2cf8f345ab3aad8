// Append: the blocks of the longer sequence are longer, so each rank takes the first rows of the blocks behind its own, and rows of `new`.
#include <algorithm>
#include <cstring>

#include "comm/group.h"
#include "core/check.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

class Append final : public PreparedKernel {
 public:
  explicit Append(const PrepareArgs& args) : group_(args.group) {
    const OpCall& call = args.call;
    const auto ranks = call.attributes.integer("num_ranks");
    if (!group_) fail(ErrorCode::invalid_argument, "Append over {} ranks cannot run on a rank outside their groups", ranks);
    if (group_->size() != ranks) fail(ErrorCode::mismatch, "Append is over {} ranks, its group has {}", ranks, group_->size());
    const int dim = normalize_axis(call.attributes.integer("dim"), call.operand(0).rank());
    const AxisView past(shape_of(call.operand(0)), dim), fresh(shape_of(call.operand(1)), dim), to(shape_of(call.results.at(0)), dim);
    extent_ = call.attributes.dim("extent").constant();
    lines_ = to.outer;
    row_bytes_ = bytes(call.operand(0).dtype, to.inner);
    past_ = past.extent;
    fresh_ = fresh.extent;
    block_ = to.extent;
    for (int peer = 0; peer < group_->size(); ++peer) {
      const Rows out = moved(group_->rank(), peer), in = moved(peer, group_->rank());
      if (peer != group_->rank()) message_bytes_ = std::max({message_bytes_, size(out), size(in)});
    }
  }

  std::size_t workspace_bytes() const override { return message_bytes_; }

  // Rows go to lower ranks only. Every rank sends before it receives and starts with its neighbour, so no two wait for each other.
  void run(const RunArgs& args) const override {
    const int rank = group_->rank();
    const std::int64_t from = rank * past_, to = rank * block_;
    std::byte *message = args.workspace, *out = args.results[0];
    for (int peer = rank - 1; peer >= 0; --peer) {
      const Rows rows = moved(rank, peer);
      if (size(rows) == 0) continue;
      copy(args.pool(), args.operands[0], past_, rows.begin - from, message, rows.count, 0, rows.count);
      group_->send({message, size(rows)}, peer, args.deadline);
    }
    const Rows kept = moved(rank, rank), added = overlap(extent_, extent_ + fresh_, to, to + block_);
    copy(args.pool(), args.operands[0], past_, kept.begin - from, out, block_, kept.begin - to, kept.count);
    copy(args.pool(), args.operands[1], fresh_, added.begin - extent_, out, block_, added.begin - to, added.count);
    clear(out, std::clamp<std::int64_t>(extent_ + fresh_ - to, 0, block_));
    for (int peer = rank + 1; peer < group_->size(); ++peer) {
      const Rows rows = moved(peer, rank);
      if (size(rows) == 0) continue;
      group_->recv({message, size(rows)}, peer, args.deadline);
      copy(args.pool(), message, rows.count, 0, out, block_, rows.begin - to, rows.count);
    }
  }

 private:
  struct Rows {
    std::int64_t begin, count;  // positions in the whole sequence
  };

  static Rows overlap(std::int64_t a_begin, std::int64_t a_end, std::int64_t b_begin, std::int64_t b_end) {
    const std::int64_t begin = std::max(a_begin, b_begin);
    return {begin, std::max<std::int64_t>(std::min(a_end, b_end) - begin, 0)};
  }

  // Rows of the past that one rank has and another is to have.
  Rows moved(int from, int to) const {
    return overlap(from * past_, std::min((from + 1) * past_, extent_), to * block_, (to + 1) * block_);
  }

  std::size_t size(const Rows& rows) const { return static_cast<std::size_t>(lines_ * rows.count) * row_bytes_; }

  // Rows of every line, between blocks of `from_rows` and `to_rows` a line.
  void copy(ThreadPool& pool, const std::byte* from, std::int64_t from_rows, std::int64_t from_begin, std::byte* to, std::int64_t to_rows,
            std::int64_t to_begin, std::int64_t count) const {
    const auto at = [&](std::int64_t rows) { return static_cast<std::size_t>(rows) * row_bytes_; };
    if (at(count) == 0) return;
    const auto grain = static_cast<std::int64_t>(1 + (64 << 10) / at(count));
    pool.split(lines_, grain, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t line = begin; line < end; ++line)
        std::memcpy(to + at(line * to_rows + to_begin), from + at(line * from_rows + from_begin), at(count));
    });
  }

  // The rows of every line from `begin` on.
  void clear(std::byte* out, std::int64_t begin) const {
    if (begin == block_) return;
    const auto at = [&](std::int64_t rows) { return static_cast<std::size_t>(rows) * row_bytes_; };
    for (std::int64_t line = 0; line < lines_; ++line) std::memset(out + at(line * block_ + begin), 0, at(block_ - begin));
  }

  Group* group_;
  std::int64_t lines_ = 0, extent_ = 0;
  std::int64_t past_ = 0, fresh_ = 0, block_ = 0;  // rows a rank has of the past, of what is new, and is to have
  std::size_t row_bytes_ = 0, message_bytes_ = 0;
};

// What the last rank but its padding sends: its block, or as many rows as all blocks before it grow by.
Dim sent_bytes(const OpCall& call) {
  const int dim = normalize_axis(call.attributes.integer("dim"), call.operand(0).rank());
  const Type &past = call.operand(0), &result = call.results.at(0);
  const Dim &before = past.dims[static_cast<std::size_t>(dim)], &after = result.dims[static_cast<std::size_t>(dim)];
  std::vector<Dim> dims = past.dims;
  dims[static_cast<std::size_t>(dim)] = min(before, Dim(call.attributes.integer("num_ranks") - 1) * (after - before));
  return product(dims) * Dim(bits(past.dtype) / 8);
}

}  // namespace

extern const KernelDef append;
const KernelDef append = {
    .name = "append",
    .op = "Append",
    .refuse = [](const OpCall& call) -> std::optional<std::string> {
      if (bits(call.operand(0).dtype) < 8) return "its elements are parts of bytes";
      return std::nullopt;
    },
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Append>(args); },
    .sent_bytes = sent_bytes,
};

}  // namespace tandem::kernels
