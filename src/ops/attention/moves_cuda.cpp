#include "ops/attention/moves_cuda.h"

#include "core/check.h"
#include "device/device.h"
#include "ops/shape_rules.h"

namespace tandem::cuda {

void Exchange::run(Collective kind, const std::byte* from, std::size_t bytes, std::byte* to) const {
  const std::int64_t dims[] = {static_cast<std::int64_t>(bytes)};
  group.run({.kind = kind, .dtype = DType::u8, .dims = dims, .stream = stream, .in = from, .out = to, .deadline = deadline});
}

Moves::Moves(Kind kind, int element_bytes, const Shape& dims, const attention::Blocks& blocks) : kind_(kind) {
  const std::int64_t n = blocks.ranks, batch = dims[0], rows = dims[2], width = dims[3], whole_rows = n * rows;
  const std::int64_t heads = kind == Kind::heads ? dims[1] / n : dims[1], block = rows * width;
  const auto size = static_cast<std::size_t>(element_bytes);
  local_bytes_ = static_cast<std::size_t>(element_count(dims)) * size;
  staged_bytes_ = aligned_size(kind == Kind::heads ? local_bytes_ : static_cast<std::size_t>(n) * local_bytes_);
  whole_bytes_ = static_cast<std::size_t>(batch * heads * whole_rows * width) * size;
  if (whole_bytes_ == 0) return;
  if (kind == Kind::heads && batch > 1) {
    by_rank_.emplace(
        element_bytes,
        std::vector<CopyAxis>{{n, heads * block, batch * heads * block}, {batch, n * heads * block, heads * block}, {heads * block, 1, 1}});
    from_rank_.emplace(
        element_bytes,
        std::vector<CopyAxis>{{n, batch * heads * block, heads * block}, {batch, heads * block, n * heads * block}, {heads * block, 1, 1}});
  }
  // Rank r holds the chunk r; under zigzag the chunks r and 2·n − 1 − r of 2·n.
  const std::int64_t chunk = blocks.zigzag ? block / 2 : block, lines = batch * heads;
  const auto add = [&](std::int64_t blocks_at, std::int64_t whole_at, std::int64_t step) {
    order_.emplace_back(element_bytes, std::vector<CopyAxis>{{n, lines * block, step}, {lines, block, whole_rows * width}, {chunk, 1, 1}},
                        blocks_at, whole_at);
    disorder_.emplace_back(element_bytes,
                           std::vector<CopyAxis>{{n, step, lines * block}, {lines, whole_rows * width, block}, {chunk, 1, 1}}, whole_at,
                           blocks_at);
  };
  add(0, 0, chunk);
  if (blocks.zigzag) add(chunk, (2 * n - 1) * chunk, -chunk);
}

void Moves::collect(const Exchange& exchange, const std::byte* from, std::byte* staging, std::byte* to) const {
  if (whole_bytes_ == 0) return;
  std::byte* arrived = kind_ == Kind::heads ? staging + staged_bytes_ : staging;
  if (kind_ == Kind::heads) {
    if (by_rank_) by_rank_->launch(from, staging, exchange.stream);
    exchange.run(Collective::all_to_all, by_rank_ ? staging : from, local_bytes_, arrived);
  } else {
    exchange.run(Collective::all_gather, from, local_bytes_, arrived);
  }
  for (const StridedCopy& copy : order_) copy.launch(arrived, to, exchange.stream);
}

void Moves::spread(const Exchange& exchange, const std::byte* from, std::byte* staging, std::byte* to) const {
  tandem::check(kind_ == Kind::heads, "only heads go back");
  if (whole_bytes_ == 0) return;
  std::byte* arrived = staging + staged_bytes_;
  for (const StridedCopy& copy : disorder_) copy.launch(from, staging, exchange.stream);
  exchange.run(Collective::all_to_all, staging, local_bytes_, from_rank_ ? arrived : to);
  if (from_rank_) from_rank_->launch(arrived, to, exchange.stream);
}

}  // namespace tandem::cuda
