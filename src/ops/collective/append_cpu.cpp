// Append: rows go to lower ranks, what is new is on all of them.
#include <cstring>

#include "comm/group.h"
#include "core/check.h"
#include "ops/collective/append_cpu.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {

AppendRows::AppendRows(const PrepareArgs& args) : group(args.group) {
  const OpCall& call = args.call;
  ranks = static_cast<int>(call.attributes.integer("num_ranks"));
  if (!group) fail(ErrorCode::invalid_argument, "Append over {} ranks cannot run on a rank outside their groups", ranks);
  if (group->size() != ranks) fail(ErrorCode::mismatch, "Append is over {} ranks, its group has {}", ranks, group->size());
  rank = group->rank();
  const int dim = normalize_axis(call.attributes.integer("dim"), call.operand(0).rank());
  const AxisView before(shape_of(call.operand(0)), dim), added(shape_of(call.operand(1)), dim), after(shape_of(call.results.at(0)), dim);
  extent = call.attributes.dim("extent").constant();
  lines = after.outer;
  row_bytes = bytes(call.operand(0).dtype, after.inner);
  past = before.extent;
  fresh = added.extent;
  block = after.extent;
}

namespace {

class Append final : public PreparedKernel {
 public:
  explicit Append(const PrepareArgs& args) : rows_(args) {
    for (int peer = 0; peer < rows_.ranks; ++peer)
      if (peer != rows_.rank)
        message_bytes_ = std::max({message_bytes_, size(rows_.moved(rows_.rank, peer)), size(rows_.moved(peer, rows_.rank))});
  }

  std::size_t workspace_bytes() const override { return message_bytes_; }

  // Every rank sends before it receives and starts with its neighbour, so no two wait for each other.
  void run(const RunArgs& args) const override {
    const std::int64_t from = rows_.rank * rows_.past, to = rows_.rank * rows_.block;
    std::byte *message = args.workspace, *out = args.results[0];
    for (int peer = rows_.rank - 1; peer >= 0; --peer) {
      const AppendRows::Rows rows = rows_.moved(rows_.rank, peer);
      if (size(rows) == 0) continue;
      copy(args.pool(), args.operands[0], rows_.past, rows.begin - from, message, rows.count, 0, rows.count);
      rows_.group->send({message, size(rows)}, peer, args.deadline);
    }
    const AppendRows::Rows kept = rows_.kept(), added = rows_.added();
    copy(args.pool(), args.operands[0], rows_.past, kept.begin - from, out, rows_.block, kept.begin - to, kept.count);
    copy(args.pool(), args.operands[1], rows_.fresh, added.begin - rows_.extent, out, rows_.block, added.begin - to, added.count);
    clear(out, rows_.valid());
    for (int peer = rows_.rank + 1; peer < rows_.ranks; ++peer) {
      const AppendRows::Rows rows = rows_.moved(peer, rows_.rank);
      if (size(rows) == 0) continue;
      rows_.group->recv({message, size(rows)}, peer, args.deadline);
      copy(args.pool(), message, rows.count, 0, out, rows_.block, rows.begin - to, rows.count);
    }
  }

 private:
  std::size_t size(const AppendRows::Rows& rows) const { return rows_.bytes_of(rows.count); }

  // Rows of every line, between blocks of `from_rows` and `to_rows` a line.
  void copy(ThreadPool& pool, const std::byte* from, std::int64_t from_rows, std::int64_t from_begin, std::byte* to, std::int64_t to_rows,
            std::int64_t to_begin, std::int64_t count) const {
    const auto at = [&](std::int64_t rows) { return static_cast<std::size_t>(rows) * rows_.row_bytes; };
    if (at(count) == 0) return;
    const auto grain = static_cast<std::int64_t>(1 + (64 << 10) / at(count));
    pool.split(rows_.lines, grain, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t line = begin; line < end; ++line)
        std::memcpy(to + at(line * to_rows + to_begin), from + at(line * from_rows + from_begin), at(count));
    });
  }

  // The rows of every line from `begin` on.
  void clear(std::byte* out, std::int64_t begin) const {
    const std::int64_t block = rows_.block;
    if (begin == block) return;
    const auto at = [&](std::int64_t rows) { return static_cast<std::size_t>(rows) * rows_.row_bytes; };
    for (std::int64_t line = 0; line < rows_.lines; ++line) std::memset(out + at(line * block + begin), 0, at(block - begin));
  }

  AppendRows rows_;
  std::size_t message_bytes_ = 0;
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
