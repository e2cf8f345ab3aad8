// The same as all_reduce_norm_cuda.cu with fewer bytes sent: each rank reduces every size-th row and sends it on, and every rank adds and
// norms all rows. The three steps of a row follow one another at a distance, so that the links carry one row while others are worked on.
#include "comm/peer/norm_rows.cuh"
#include "device/cuda/registers.cuh"

namespace tandem::peer {
namespace {

// What the threads of one row of a block know. In each step there is such a row of every owner. A slot holds the raw rows that this rank is
// to reduce, by step and sender, then the reduced ones by step and owner. Rows past the end are sent too, as zeros, so that in every lane
// everyone sends to everyone.
template <typename T, int kMost, int kPer>
struct Parts {
  // Of words of peers, and whether the next row is loaded while one is worked on: what registers hold.
  static constexpr int kLoads = !cuda::kNeedsRegisters ? 4 : kPer == 1 ? 2 : 1;
  static constexpr bool kReadsAhead = !cuda::kNeedsRegisters || kPer == 1;
  const View& view;
  const ReduceAndNorm& n;
  int words, steps, lane;
  unsigned slot;

  __device__ int place(int step) const { return step * static_cast<int>(blockDim.y) + static_cast<int>(threadIdx.y); }
  __device__ std::int64_t row_of(int step, int owner) const {
    return (std::int64_t{lane} * steps * blockDim.y + place(step)) * view.size + owner;
  }
  // Where a word lies at a rank: of a sender, or of an owner.
  __device__ char* raw(int rank, int step, int sender, int j) const {
    return word_lane(view, rank, lane, slot) + (static_cast<std::size_t>(place(step) * view.size + sender) * words + column_of(j)) * kWord;
  }
  __device__ char* reduced(int rank, int step, int owner, int j) const {
    return raw(rank, step, owner, j) + static_cast<std::size_t>(steps * static_cast<int>(blockDim.y) * view.size) * words * kWord;
  }

  __device__ __forceinline__ void send_raw(int step) const {
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      if (column_of(j) >= words) continue;
      for_peers<kMost, kLoads>(
          view,
          [&](int p) {
            const std::int64_t row = row_of(step, p);
            return row < n.rows ? never_empty(row_word<T>(n, n.in, row * words + column_of(j))) : uint4{};
          },
          [&](int p, const uint4& word) { store_word(raw(p, step, view.rank, j), word); });
    }
  }

  __device__ __forceinline__ void reduce_own(int step, RowSums& sums, int turn, Wait& wait) const {
    const std::int64_t row = row_of(step, view.rank);
    uint4 own[kPer]{}, residual[kPer], sum[kPer];
    load_row<T>(n, n.in, row, words, own);
    load_row<T>(n, n.residual, row, words, residual);
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      if (column_of(j) >= words) continue;
      sum[j] = take_and_reduce<T, kMost, true, kLoads>(view, raw(view.rank, step, 0, j), static_cast<std::size_t>(words) * kWord,
                                                       never_empty(own[j]), Fold::sum, wait);
      for_peers<kMost, kLoads>(
          view, [&](int) { return sum[j]; }, [&](int p, const uint4& word) { store_word(reduced(p, step, view.rank, j), word); });
    }
    finish_row<T>(n, row, words, sum, residual, sums, turn);
  }

  __device__ __forceinline__ void load_reduced(int step, int owner, uint4 (&word)[kPer], uint4 (&residual)[kPer]) const {
    load_row<T>(n, n.residual, row_of(step, owner), words, residual);
#pragma unroll
    for (int j = 0; j < kPer; ++j)
      if (column_of(j) < words) word[j] = load_word(reduced(view.rank, step, owner, j));
  }

  // The rows of the others.
  __device__ __forceinline__ void take_reduced(int step, RowSums& sums, int turn, Wait& wait) const {
    const auto owner_of = [&](int k) { return view.rank + k < view.size ? view.rank + k : view.rank + k - view.size; };
    uint4 word[kPer], residual[kPer];
    if (kReadsAhead && view.size > 1) load_reduced(step, owner_of(1), word, residual);
    for (int k = 1; k < view.size; ++k) {
      const int owner = owner_of(k);
      if (!kReadsAhead) load_reduced(step, owner, word, residual);
      uint4 now[kPer], more[kPer];
#pragma unroll
      for (int j = 0; j < kPer; ++j) now[j] = word[j], more[j] = residual[j];
      if (kReadsAhead && k + 1 < view.size) load_reduced(step, owner_of(k + 1), word, residual);
#pragma unroll
      for (int j = 0; j < kPer; ++j) {
        if (column_of(j) >= words) continue;
        char* const at = reduced(view.rank, step, owner, j);
        while (is_empty(now[j]) && !wait.over(view, owner)) now[j] = load_word(at);
        wipe(at);
      }
      finish_row<T>(n, row_of(step, owner), words, now, more, sums, turn + k);
    }
  }
};

template <typename T, int kMost, int kPer>
__global__ void __launch_bounds__(kThreads, 1)
    reduce_and_norm_parts(const __grid_constant__ View view, const __grid_constant__ ReduceAndNorm n, int words, int steps) {
  __shared__ RowSums sums;
  begin_dependent();
  const Turn turn = begin_turn(view);
  if (turn.ended) return;
  tell_begun(view, turn.begun);
  const int lane = static_cast<int>(blockIdx.x);
  const Parts<T, kMost, kPer> parts{view, n, words, steps, lane, turn.lane.calls & 1};
  Wait wait;
  int finished = 0;  // rows
  for (int step = 0; step < steps + 2; ++step) {
    if (step < steps) parts.send_raw(step);
    if (step >= 1 && step - 1 < steps) parts.reduce_own(step - 1, sums, finished++, wait);
    if (step < 2) continue;
    parts.take_reduced(step - 2, sums, finished - 1, wait);
    finished += view.size - 1;
  }
  if (threadIdx.x == 0 && threadIdx.y == 0) view.state->lanes[lane].calls = turn.lane.calls + 1;
}

// Rows of each owner that a block can have.
std::int64_t most_in_block(const RowLayout& rows, int size) {
  return static_cast<std::int64_t>(kWordLane / kWord) / (2 * size) / rows.words;
}

template <typename T, int kMost>
void launch_of(const View& view, const ReduceAndNorm& work, cudaStream_t stream) {
  const RowLayout rows = row_layout(work);
  const std::int64_t of_owner = (work.rows + view.size - 1) / view.size, per_block = (of_owner + work.blocks - 1) / work.blocks;
  const std::int64_t height = std::min({std::int64_t{rows.height}, per_block, most_in_block(rows, view.size)}),
                     steps = (per_block + height - 1) / height;
  const std::int64_t blocks = (of_owner + steps * height - 1) / (steps * height);
  const Start start(stream, work.early);
  const dim3 grid(static_cast<unsigned>(blocks)), block(static_cast<unsigned>(rows.threads), static_cast<unsigned>(height));
  if (rows.per == 1)
    start_kernel(start, spinning<reduce_and_norm_parts<T, kMost, 1>>(), grid, block, 0, view, work, rows.words, static_cast<int>(steps));
  else
    start_kernel(start, spinning<reduce_and_norm_parts<T, kMost, kMostPer>>(), grid, block, 0, view, work, rows.words,
                 static_cast<int>(steps));
}

}  // namespace

std::int64_t most_rows_by_parts(const ReduceAndNorm& work, int size) {
  const RowLayout rows = row_layout(work);
  const std::int64_t most = most_in_block(rows, size), height = std::min<std::int64_t>(rows.height, most);
  return height == 0 ? 0 : most / height * height * work.blocks * size;
}

void launch_norm_by_parts(const View& view, const ReduceAndNorm& work, cudaStream_t stream) {
  with_type(work.dtype, view.size, [&](auto t, auto most) { launch_of<decltype(t), decltype(most)::value>(view, work, stream); });
}

}  // namespace tandem::peer
