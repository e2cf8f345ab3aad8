// What all_reduce_norm_cuda.cu does, for few rows and RmsNorm: a block has one row and a thread one word of it, for as many ranks as the
// code is written for. Such a call takes a few microseconds, of which fetching instructions and parameters is a part: short code is fast
// code.
#include "comm/peer/norm_rows.cuh"

namespace tandem::peer {
namespace {

template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads, 1)
    reduce_and_norm_rows(const __grid_constant__ View view, const __grid_constant__ ReduceAndNorm n, int words) {
  __shared__ float sums[kWarps];
  const int column = static_cast<int>(threadIdx.x), lane = static_cast<int>(blockIdx.x);
  const std::int64_t at = std::int64_t{lane} * words + column;
  const bool has = column < words;
  uint4 scale{}, own{}, residual{};
  if (has && n.resident) scale = static_cast<const uint4*>(n.scale)[column];
  wait_for_previous();
  // As a word, which the compiler leaves in its place: else it reads it once `ended` has come, and both ways to memory are waited for.
  if (has) own = load_word(static_cast<const uint4*>(n.in) + at);
  // Not all threads need see the same: who sends nothing because another has given up leaves the block's row to be worth nothing.
  const std::uint32_t calls = load_plain(&view.state->lanes[lane].calls);
  const std::uint64_t begun = load_begun(view);
  if (load_plain(&view.state->ended) != 0) return;
  if (has && !n.resident) scale = static_cast<const uint4*>(n.scale)[column];
  if (has) residual = static_cast<const uint4*>(n.residual)[at];
  own = never_empty(own);
  constexpr std::size_t kApart = kWordLane / kSize;
  const std::size_t place = static_cast<std::size_t>(column) * kWord;
  if (has) {
#pragma unroll
    for (int k = 1; k < kSize; ++k) store_word(word_lane(view, (view.rank + k) % kSize, lane, calls & 1) + view.rank * kApart + place, own);
  }
  tell_begun(view, begun);
  let_next_begin();
  Values<T> x{};
  float squares = 0;
  if (has) {
    Wait wait;
    const uint4 reduced = take_and_reduce<T, kSize, true, kSize, (kSize > 2)>(view, word_lane(view, view.rank, lane, calls & 1) + place,
                                                                              kApart, own, Fold::sum, wait);
    x = Values<T>::of(reduced);
    // Zeros, as where the other kernel adds offset and bias: where a rank's memory is not aligned, that rank takes that one, which puts
    // words in the same places, and all ranks have the same bits (−0 becomes 0).
    const Values<T> more = Values<T>::of(residual);
#pragma unroll
    for (int k = 0; k < Values<T>::kCount; ++k) x.at[k] = x.at[k] + 0.0f + more.at[k];
    const uint4 stored = x.word();
    static_cast<uint4*>(n.sum)[at] = stored;
    x = Values<T>::of(stored);
#pragma unroll
    for (int k = 0; k < Values<T>::kCount; ++k) squares += x.at[k] * x.at[k];
  }
  const float factor = 1.0f / sqrtf(row_sum(squares, sums) / static_cast<float>(n.length) + n.epsilon);
  if (has) {
    const Values<T> by = Values<T>::of(scale);
#pragma unroll
    for (int k = 0; k < Values<T>::kCount; ++k) x.at[k] = x.at[k] * factor * by.at[k] + 0.0f;
    static_cast<uint4*>(n.y)[at] = x.word();
  }
  if (column == 0) view.state->lanes[lane].calls = calls + 1;  // which all have read before the barrier in row_sum()
}

}  // namespace

bool takes_norm_of_rows(const ReduceAndNorm& work, int size) {
  return (size == 2 || size == 4 || size == 8) && work.aligned && !work.centers && !work.offset && !work.bias &&
         row_layout(work).words <= kThreads && work.rows <= std::min(work.blocks, kLanes);
}

void launch_norm_of_rows(const View& view, const ReduceAndNorm& work, cudaStream_t stream) {
  const RowLayout rows = row_layout(work);
  const Start start(stream, work.early);
  with_type(work.dtype, view.size, [&](auto t, auto most) {
    start_kernel(start, spinning<reduce_and_norm_rows<decltype(t), decltype(most)::value>>(), dim3(static_cast<unsigned>(work.rows)),
                 dim3(static_cast<unsigned>(rows.threads)), 0, view, work, rows.words);
  });
}

}  // namespace tandem::peer
