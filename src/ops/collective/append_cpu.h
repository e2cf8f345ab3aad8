// Which rows go where when a sequence that lies in blocks over ranks grows: the blocks of the longer one are longer, so each rank takes the
// first rows of the blocks behind its own, and rows of what is new.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ops/kernel.h"

namespace tandem::kernels {

struct AppendRows {
  // Throws Error(invalid_argument) for a rank outside the groups, Error(mismatch) for a group of another size.
  explicit AppendRows(const PrepareArgs& args);

  struct Rows {
    std::int64_t begin, count;  // positions in the whole sequence
  };
  // Rows of the past that one rank has and another is to have; none where `to` is behind `from` or either is no rank.
  Rows moved(int from, int to) const { return overlap(from * past, std::min((from + 1) * past, extent), to * block, (to + 1) * block); }
  Rows kept() const { return moved(rank, rank); }
  // Those of what is new that this rank is to have.
  Rows added() const { return overlap(extent, extent + fresh, rank * block, (rank + 1) * block); }
  // How many rows of this rank's result are not padding.
  std::int64_t valid() const { return std::clamp<std::int64_t>(extent + fresh - rank * block, 0, block); }
  // Bytes of so many rows of every line.
  std::size_t bytes_of(std::int64_t rows) const { return static_cast<std::size_t>(lines * rows) * row_bytes; }

  Group* group;
  int rank = 0, ranks = 1;
  std::int64_t lines = 0, extent = 0;           // what is before the rows, multiplied; rows of the past on all ranks together
  std::int64_t past = 0, fresh = 0, block = 0;  // rows a rank has of the past, of what is new, and is to have
  std::size_t row_bytes = 0;

 private:
  static Rows overlap(std::int64_t a_begin, std::int64_t a_end, std::int64_t b_begin, std::int64_t b_end) {
    const std::int64_t begin = std::max(a_begin, b_begin);
    return {begin, std::max<std::int64_t>(std::min(a_end, b_end) - begin, 0)};
  }
};

}  // namespace tandem::kernels
