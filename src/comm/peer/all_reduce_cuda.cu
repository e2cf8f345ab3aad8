// All-reduce of floats by words that say themselves whether they have arrived (see layout.h).
#include "comm/peer/words.cuh"

#include <algorithm>

namespace tandem::peer {
namespace {

constexpr int kWordsAtOnce = kWordLane / kWord;  // of a lane's slot
// How far before the words that a thread waits for are those that it sends, so that the links never rest.
constexpr int kDistance = 2 * kThreads;

template <typename T, int kMost, bool kSums>
__global__ void __launch_bounds__(kThreads, 1)
    at_once(const __grid_constant__ View view, const __grid_constant__ WordArrays a, Fold fold, int words, int per_block) {
  const int lane = static_cast<int>(blockIdx.x), begin = lane * per_block, count = min(per_block, words - begin);
  const std::size_t apart = static_cast<std::size_t>(kWordsAtOnce / view.size) * kWord;  // from one sender's words to the next
  int i = static_cast<int>(threadIdx.x);
  begin_dependent();
  uint4 own{};
  if (i < count) own = read_word<T>(a, a.in, begin + i);
  const Turn turn = begin_turn(view);
  if (turn.ended) return;
  tell_begun(view, turn.begun);
  own = never_empty(own);  // not before: what begin_turn() reads would wait for it
  const unsigned slot = turn.lane.calls & 1;
  const bool one = count <= kThreads;
  Wait wait;
  char* const arriving = word_lane(view, view.rank, lane, slot);
  for (int next = i, taken = i - kDistance; taken < count; next += kThreads, taken += kThreads) {
    if (next < count) {
      if (next != i) own = never_empty(read_word<T>(a, a.in, begin + next));
      for_peers<kMost>(
          view, [&](int) { return own; },
          [&](int p, const uint4& word) {
            store_word(word_lane(view, p, lane, slot) + view.rank * apart + static_cast<std::size_t>(next) * kWord, word);
          });
    }
    if (taken < 0) continue;
    if (!one) own = never_empty(read_word<T>(a, a.in, begin + taken));
    write_word<T>(
        a, a.out, begin + taken,
        take_and_reduce<T, kMost, kSums, 4, (kMost > 2)>(view, arriving + static_cast<std::size_t>(taken) * kWord, apart, own, fold, wait));
  }
  if (threadIdx.x == 0) view.state->lanes[lane].calls = turn.lane.calls + 1;
}

// Rank p reduces part p. A slot holds the raw words of its part by sender, then the reduced words of all parts by part. All parts count as
// equally long, so that in every lane everyone sends to everyone.
template <typename T, int kMost, bool kSums>
__global__ void __launch_bounds__(kThreads, 1)
    by_parts(const __grid_constant__ View view, const __grid_constant__ WordArrays a, Fold fold, int part, int per_block) {
  const int lane = static_cast<int>(blockIdx.x), begin = lane * per_block, count = min(per_block, part - begin);
  const std::size_t apart = static_cast<std::size_t>(per_block) * kWord;
  begin_dependent();
  const Turn turn = begin_turn(view);
  if (turn.ended) return;
  tell_begun(view, turn.begun);
  const unsigned slot = turn.lane.calls & 1;
  const auto index_of = [&](int of, int i) { return static_cast<std::int64_t>(of) * part + begin + i; };
  const auto place = [&](int rank, int section, int i) {
    return word_lane(view, rank, lane, slot) + section * apart + static_cast<std::size_t>(i) * kWord;
  };
  Wait wait;
  const auto send_raw = [&](int i) {
    for_peers<kMost>(
        view, [&](int p) { return never_empty(read_word<T>(a, a.in, index_of(p, i))); },
        [&](int p, const uint4& word) { store_word(place(p, view.rank, i), word); });
  };
  const auto reduce_own = [&](int i) {
    const uint4 own = never_empty(read_word<T>(a, a.in, index_of(view.rank, i)));
    const uint4 sum = take_and_reduce<T, kMost, kSums>(view, place(view.rank, 0, i), apart, own, fold, wait);
    for_peers<kMost>(
        view, [&](int) { return sum; }, [&](int p, const uint4& word) { store_word(place(p, view.size + view.rank, i), word); });
    write_word<T>(a, a.out, index_of(view.rank, i), sum);
  };
  const auto take_reduced = [&](int i) {
    const auto at = [&](int p) { return place(view.rank, view.size + p, i); };
    for_peers<kMost>(
        view, [&](int p) { return load_word(at(p)); },
        [&](int p, uint4 word) {
          while (is_empty(word) && !wait.over(view, p)) word = load_word(at(p));
          wipe(at(p));
          write_word<T>(a, a.out, index_of(p, i), word);
        });
  };
  for (int i = static_cast<int>(threadIdx.x); i < count + 2 * kDistance; i += kThreads) {
    if (i < count) send_raw(i);
    if (i >= kDistance && i - kDistance < count) reduce_own(i - kDistance);
    if (i >= 2 * kDistance) take_reduced(i - 2 * kDistance);
  }
  if (threadIdx.x == 0) view.state->lanes[lane].calls = turn.lane.calls + 1;
}

int words_of(const ReduceWords& work) {
  const auto per = static_cast<std::int64_t>(kWord / (bits(work.dtype) / 8));
  return static_cast<int>((work.arrays.elements + per - 1) / per);
}

std::int64_t elements_in(DType dtype, std::int64_t words) {
  return words * static_cast<std::int64_t>(kWord / (static_cast<std::size_t>(bits(dtype)) / 8));
}

int rounded_up(int a, int b) { return (a + b - 1) / b; }

template <typename T, int kMost>
void launch_at_once_of(const View& view, const ReduceWords& work, cudaStream_t stream) {
  const int words = words_of(work), most = std::min(work.blocks, kLanes);
  const int per_block = std::max(kThreads, rounded_up(words, most)), blocks = rounded_up(words, per_block);
  const Start start(stream, work.early);
  const dim3 grid(static_cast<unsigned>(blocks)), block(kThreads);
  if (work.fold == Fold::sum || work.fold == Fold::avg)
    start_kernel(start, spinning<at_once<T, kMost, true>>(), grid, block, 0, view, work.arrays, work.fold, words, per_block);
  else start_kernel(start, spinning<at_once<T, kMost, false>>(), grid, block, 0, view, work.arrays, work.fold, words, per_block);
}

template <typename T, int kMost>
void launch_by_parts_of(const View& view, const ReduceWords& work, cudaStream_t stream) {
  const int part = rounded_up(words_of(work), view.size), most = std::min(work.blocks, kLanes);
  const int per_block = std::max(kThreads, rounded_up(part, most)), blocks = rounded_up(part, per_block);
  const Start start(stream, work.early);
  const dim3 grid(static_cast<unsigned>(blocks)), block(kThreads);
  if (work.fold == Fold::sum || work.fold == Fold::avg)
    start_kernel(start, spinning<by_parts<T, kMost, true>>(), grid, block, 0, view, work.arrays, work.fold, part, per_block);
  else start_kernel(start, spinning<by_parts<T, kMost, false>>(), grid, block, 0, view, work.arrays, work.fold, part, per_block);
}

}  // namespace

std::int64_t most_at_once(DType dtype, int size, int blocks) {
  return elements_in(dtype, std::int64_t{kWordsAtOnce / size} * std::min(blocks, kLanes));
}

std::int64_t most_by_parts(DType dtype, int size, int blocks) {
  return elements_in(dtype, std::int64_t{kWordsAtOnce / (2 * size)} * size * std::min(blocks, kLanes));
}

void launch_at_once(const View& view, const ReduceWords& work, cudaStream_t stream) {
  with_type(work.dtype, view.size, [&](auto t, auto most) { launch_at_once_of<decltype(t), decltype(most)::value>(view, work, stream); });
}

void launch_by_parts(const View& view, const ReduceWords& work, cudaStream_t stream) {
  with_type(work.dtype, view.size, [&](auto t, auto most) { launch_by_parts_of<decltype(t), decltype(most)::value>(view, work, stream); });
}

}  // namespace tandem::peer
