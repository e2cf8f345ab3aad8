#include "ops/attention/ranks_cpu.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "ops/shape_rules.h"

namespace tandem::attention {
namespace {

Blocks blocks_of(const OpCall& call, std::string_view extent, std::int64_t local, int ranks, std::string_view what) {
  Blocks blocks{ranks, local, call.attributes.dim(extent).constant(), call.attributes.text("layout") == "zigzag"};
  if (blocks.extent == 0) blocks.extent = blocks.padded();
  if (blocks.extent < 0 || blocks.extent > blocks.padded())
    fail(ErrorCode::invalid_argument, "{} {} do not fit {} ranks with {} each", blocks.extent, what, ranks, local);
  if (blocks.zigzag && local % 2 != 0)
    fail(ErrorCode::invalid_argument, "the zigzag layout needs an even number of {} on each rank, not {}", what, local);
  return blocks;
}

void check_mask_columns(const OpCall& call, std::int64_t extent) {
  if (!call.has_operand(kMask)) return;
  const Shape mask = shape_of(call.operand(kMask));
  if (!mask.empty() && mask.back() != 1 && mask.back() != extent)
    fail(ErrorCode::invalid_argument, "the mask {} must have a column for each of the {} keys of all ranks",
         call.operand(kMask).to_string(), extent);
}

std::vector<std::int64_t> moved(const std::vector<std::int64_t>& counts, std::int64_t by) {
  std::vector<std::int64_t> result;
  for (const std::int64_t count : counts) result.push_back(std::max<std::int64_t>(count - by, 0));
  return result;
}

}  // namespace

std::vector<Segment> Blocks::of(int rank) const {
  std::vector<Segment> segments;
  const auto add = [&](std::int64_t at, std::int64_t position, std::int64_t count) {
    count = std::min(count, extent - position);
    if (count > 0) segments.push_back({at, position, count});
  };
  if (zigzag) {
    add(0, rank * (local / 2), local / 2);
    add(local / 2, (2 * ranks - 1 - rank) * (local / 2), local / 2);
  } else {
    add(0, rank * local, local);
  }
  return segments;
}

std::vector<Segment> Blocks::all() const {
  if (!zigzag) return extent == 0 ? std::vector<Segment>{} : std::vector<Segment>{{0, 0, extent}};
  std::vector<Segment> segments;
  for (int r = 0; r < ranks; ++r)
    for (Segment s : of(r)) {
      s.local += r * local;
      segments.push_back(s);
    }
  return segments;
}

Piece::Piece(const AttentionProblem& whole, const RunValues& values, const Segment& rows, const Segment& columns)
    : problem(whole), row_counts_(moved(values.row_counts, rows.position)), column_counts_(moved(values.column_counts, columns.position)) {
  AttentionProblem& p = problem;
  p.rows = rows.count;
  p.columns = columns.count;
  p.q = values.q + bytes(p.dtype, rows.local * p.q_steps.row);
  p.k = values.k + bytes(p.dtype, columns.local * p.k_steps.row);
  p.v = values.v + bytes(p.dtype, columns.local * p.v_steps.row);
  if (values.out) p.out = values.out + bytes(p.out_dtype, rows.local * p.out_steps.row);
  if (values.mask) p.mask = values.mask + bytes(p.mask_dtype, rows.local * p.mask_steps.row + columns.position * p.mask_column_step);
  p.diagonal = values.diagonal + rows.position - columns.position;
  p.row_counts = row_counts_;
  p.column_counts = column_counts_;
}

bool Piece::sees_any() const {
  if (problem.rows == 0 || problem.columns == 0 || problem.rows - 1 + problem.diagonal < 0) return false;
  const auto positive = [](std::int64_t count) { return count > 0; };
  return column_counts_.empty() || std::ranges::any_of(column_counts_, positive);
}

Spread::Spread(const PrepareArgs& args)
    : call(args.call),
      problem(problem_of(args.call)),
      group(args.group),
      ranks(static_cast<int>(args.call.attributes.integer("num_ranks"))),
      threads(args.threads) {
  if (!group) fail(ErrorCode::invalid_argument, "Attention over {} ranks cannot run on a rank outside their groups", ranks);
  if (group->size() != ranks) fail(ErrorCode::mismatch, "Attention is over {} ranks, its group has {}", ranks, group->size());
  rank = group->rank();
  rows = {1, problem.rows, problem.rows, false};
  if (call.attributes.text("split") == "qkv") rows = blocks_of(call, "extent", problem.rows, ranks, "rows");
  columns = blocks_of(call, "kv_extent", problem.columns, ranks, "keys");
  check_mask_columns(call, columns.extent);
}

RunValues Spread::values(const RunArgs& args) const {
  return {.q = args.operands[kQ],
          .k = args.operands[kK],
          .v = args.operands[kV],
          .mask = call.has_operand(kMask) ? args.operands[kMask] : nullptr,
          .out = args.results[0],
          .row_counts = lengths_of(call, kQueryLengths, args.operands),
          .column_counts = lengths_of(call, kKeyLengths, args.operands),
          .diagonal = diagonal_of(call, args.operands, rows.extent, columns.extent)};
}

void Spread::run(CollectiveCall collective, const RunArgs& args) const {
  if (std::ranges::find(collective.dims, 0) != collective.dims.end()) return;
  collective.deadline = args.deadline;
  group->run(collective);
}

std::optional<std::string> ranks_refusal(const OpCall& call, std::string_view split, std::string_view algorithm) {
  if (call.attributes.integer("num_ranks") <= 1) return "it is for several ranks";
  if (call.attributes.text("split") != split) return fmt::format("it is for split='{}'", split);
  const std::string& wanted = call.attributes.text("algorithm");
  if (!algorithm.empty() && wanted != "auto" && wanted != algorithm) return fmt::format("algorithm='{}' is asked for", wanted);
  return attention_refusal(call);
}

Dim operand_bytes(const OpCall& call, std::size_t operand) {
  const Type& type = call.operand(operand);
  return product(type.dims) * Dim(bits(type.dtype) / 8);
}

Dim sent_keys_and_values(const OpCall& call) {
  return Dim(call.attributes.integer("num_ranks") - 1) * (operand_bytes(call, kK) + operand_bytes(call, kV));
}

void order_positions(const Blocks& blocks, ThreadPool& pool, const std::byte* from, std::byte* to, std::int64_t lines,
                     std::size_t row_bytes) {
  const std::vector<Segment> segments = blocks.all();
  const std::size_t line_bytes = static_cast<std::size_t>(blocks.padded()) * row_bytes;
  const auto grain = static_cast<std::int64_t>(1 + (64 << 10) / std::max<std::size_t>(line_bytes, 1));
  pool.split(lines, grain, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t line = begin; line < end; ++line) {
      const std::size_t start = static_cast<std::size_t>(line) * line_bytes;
      for (const Segment& s : segments)
        std::memcpy(to + start + static_cast<std::size_t>(s.position) * row_bytes,
                    from + start + static_cast<std::size_t>(s.local) * row_bytes, static_cast<std::size_t>(s.count) * row_bytes);
    }
  });
}

void clear_padding(const Blocks& blocks, std::byte* out, std::size_t size) {
  if (blocks.extent != blocks.padded() && size != 0) std::memset(out, 0, size);
}

}  // namespace tandem::attention
