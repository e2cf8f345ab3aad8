// All-reduce, the addition of a residual and the norm of the sum, in one kernel: a block has whole rows, so that the norm follows in
// registers. Everyone sends every row to everyone, a few rows before those that are waited for, so that the links never rest.
#include "comm/peer/norm_rows.cuh"

namespace tandem::peer {
namespace {

constexpr int kAhead = 2;  // rows of a thread that are on their way while it waits for one

// A block has `per_block` rows one after the other, blockDim.y at a time.
template <typename T, int kMost, int kPer>
__global__ void __launch_bounds__(kThreads, 1)
    reduce_and_norm(const __grid_constant__ View view, const __grid_constant__ ReduceAndNorm n, int words, int per_block) {
  __shared__ RowSums sums;
  const int lane = static_cast<int>(blockIdx.x), height = static_cast<int>(blockDim.y);
  const std::int64_t first = std::int64_t{lane} * per_block;
  const int rows = static_cast<int>(min(static_cast<std::int64_t>(per_block), n.rows - first)), steps = (rows + height - 1) / height;
  const std::size_t apart = kWordLane / kWord / view.size * kWord;
  // The row of a step within the block, and within the tensor: past its end where there is none.
  const auto own_row = [&](int step) { return step * height + static_cast<int>(threadIdx.y); };
  const auto row_of = [&](int step) { return own_row(step) < rows ? first + own_row(step) : n.rows; };
  const auto at = [&](int step, int j) { return static_cast<std::size_t>(own_row(step) * words + column_of(j)) * kWord; };
  begin_dependent();
  uint4 own[kPer], next[kPer];
  load_row<T>(n, n.in, row_of(0), words, own);
  const Turn turn = begin_turn(view);
  if (turn.ended) return;
  tell_begun(view, turn.begun);
  const unsigned slot = turn.lane.calls & 1;
  const auto push = [&](int step, const uint4(&row)[kPer]) {
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      if (row_of(step) == n.rows || column_of(j) >= words) continue;
      const uint4 word = never_empty(row[j]);
      for_peers<kMost>(
          view, [&](int) { return word; },
          [&](int p, const uint4& w) { store_word(word_lane(view, p, lane, slot) + view.rank * apart + at(step, j), w); });
    }
  };
  push(0, own);
  for (int step = 1; step < min(kAhead, steps); ++step) {
    load_row<T>(n, n.in, row_of(step), words, next);
    push(step, next);
  }
  if (steps > kAhead) load_row<T>(n, n.in, row_of(kAhead), words, next);
  Wait wait;
  char* const arriving = word_lane(view, view.rank, lane, slot);
  for (int step = 0; step < steps; ++step) {
    uint4 residual[kPer], reduced[kPer];
    if (step + kAhead < steps) push(step + kAhead, next);
    if (step > 0) load_row<T>(n, n.in, row_of(step), words, own);
    load_row<T>(n, n.residual, row_of(step), words, residual);
    if (step + kAhead + 1 < steps) load_row<T>(n, n.in, row_of(step + kAhead + 1), words, next);
#pragma unroll
    for (int j = 0; j < kPer; ++j)
      if (row_of(step) != n.rows && column_of(j) < words)
        reduced[j] = take_and_reduce<T, kMost, true>(view, arriving + at(step, j), apart, never_empty(own[j]), Fold::sum, wait);
    finish_row<T>(n, row_of(step), words, reduced, residual, sums, step);
  }
  if (threadIdx.x == 0 && threadIdx.y == 0) view.state->lanes[lane].calls = turn.lane.calls + 1;
}

template <typename T, int kMost>
void launch_of(const View& view, const ReduceAndNorm& work, cudaStream_t stream) {
  const RowLayout rows = row_layout(work);
  const auto per_block = static_cast<int>((work.rows + work.blocks - 1) / work.blocks),
             blocks = static_cast<int>((work.rows + per_block - 1) / per_block);
  const Start start(stream, work.early);
  const dim3 grid(static_cast<unsigned>(blocks)),
      block(static_cast<unsigned>(rows.threads), static_cast<unsigned>(std::min(rows.height, per_block)));
  if (rows.per == 1) start_kernel(start, spinning<reduce_and_norm<T, kMost, 1>>(), grid, block, 0, view, work, rows.words, per_block);
  else start_kernel(start, spinning<reduce_and_norm<T, kMost, kMostPer>>(), grid, block, 0, view, work, rows.words, per_block);
}

}  // namespace

bool can_reduce_and_norm(DType dtype, std::int64_t length, int size) {
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16) return false;
  const std::int64_t row = length * (bits(dtype) / 8), word = static_cast<std::int64_t>(kWord);
  return length > 0 && row % word == 0 && row / word <= std::int64_t{kMostPer} * kThreads &&
         row * 2 * size <= static_cast<std::int64_t>(kWordLane);
}

std::int64_t most_rows_at_once(const ReduceAndNorm& work, int size) {
  return static_cast<std::int64_t>(kWordLane / kWord) / size / row_layout(work).words * work.blocks;
}

void launch_norm_at_once(const View& view, const ReduceAndNorm& work, cudaStream_t stream) {
  if (takes_norm_of_rows(work, view.size)) return launch_norm_of_rows(view, work, stream);
  with_type(work.dtype, view.size, [&](auto t, auto most) { launch_of<decltype(t), decltype(most)::value>(view, work, stream); });
}

}  // namespace tandem::peer
