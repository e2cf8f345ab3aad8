// Lines of attention moved by every kernel that moves them: each byte of what they may write against loops, on one GPU, where the memory of
// all ranks lies.
#include "ops/attention/lines_move_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "comm/peer/spinning.h"
#include "gpu/here.h"

namespace tandem::cuda {
namespace {

using With = LineMove::With;
constexpr std::size_t kArea = std::size_t{1} << 22, kArrivals = peer::kRoomEvents * peer::kMaxRanks * peer::kArrivalStride;

void require(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

struct Memory {
  explicit Memory(std::size_t size) : bytes(size) {
    require(cudaMalloc(&data, size));
    require(cudaMemset(data, 0, size));
  }
  ~Memory() { cudaFree(data); }
  Memory(const Memory&) = delete;
  std::vector<char> read() const {
    std::vector<char> got(bytes);
    require(cudaMemcpy(got.data(), data, bytes, cudaMemcpyDeviceToHost));
    return got;
  }
  char* data = nullptr;
  std::size_t bytes;
};

// Ranks whose memory lies on one GPU, seen by one of them.
struct Ranks {
  Ranks(int rank, int size) : state(sizeof(peer::State)), room_state(sizeof(peer::RoomState)), arrivals(kArrivals * peer::kMaxRanks) {
    require(cudaHostAlloc(&page, sizeof(peer::HostPage), cudaHostAllocMapped));
    *page = {};
    view.state = reinterpret_cast<peer::State*>(state.data);
    view.page = page;
    view.rank = rank;
    view.size = size;
    view.limit = 4'000'000'000;  // clock cycles, some 2 s
    room.state = reinterpret_cast<peer::RoomState*>(room_state.data);
    for (int r = 0; r < size; ++r) room.arrivals[r] = arrivals.data + static_cast<std::size_t>(r) * kArrivals;
  }
  ~Ranks() { cudaFreeHost(page); }
  Ranks(const Ranks&) = delete;

  std::uint32_t word(int at, int event, int from) const {
    std::uint32_t value = 0;
    require(cudaMemcpy(&value, word_at(at, event, from), sizeof value, cudaMemcpyDeviceToHost));
    return value;
  }
  void announce(int at, int event, int from, std::uint32_t call) const {
    require(cudaMemcpy(word_at(at, event, from), &call, sizeof call, cudaMemcpyHostToDevice));
  }
  char* word_at(int at, int event, int from) const {
    return room.arrivals[at] + static_cast<std::size_t>(event * peer::kMaxRanks + from) * peer::kArrivalStride;
  }

  Memory state, room_state, arrivals;
  peer::HostPage* page = nullptr;
  peer::View view{};
  peer::RoomView room{};
};

// A move of random lines between two areas, and what it does there, by loops.
class RandomMove {
 public:
  // `unit`: what all distances are multiples of. `at`: where its lines begin in both areas, past those of moves before.
  RandomMove(std::mt19937& random, int unit, int ranks, int groups, With with, std::int64_t& at) {
    const auto some = [&](int least, int most) { return std::uniform_int_distribution(least, most)(random); };
    const auto gap = [&] { return std::int64_t{unit} * (some(0, 1) * some(0, 3)); };
    move.with = with;
    move.batch = some(1, 2), move.heads = some(1, 3), move.rows = some(1, 90), move.bytes = unit * some(1, 20);
    move.cut = some(0, 1) ? move.rows : some(0, move.rows);
    for (LineSteps* steps : {&move.from_steps, &move.to_steps}) {
      steps->row = move.bytes + gap();
      steps->head = (move.rows + 1) * steps->row + gap();
      steps->batch = move.heads * steps->head + gap();
      std::int64_t& group = steps == &move.from_steps ? move.from_group : move.to_group;
      group = move.batch * steps->batch + gap();
      for (int r = 0; r < ranks; ++r) {
        (steps == &move.from_steps ? from : to)[r] = at;
        at += (groups * group + 15) / 16 * 16 + unit * (unit < 16);
        // Within the row that is left free.
        (steps == &move.from_steps ? move.from_jump : move.to_jump)[r] = some(0, 1) * steps->row;
      }
    }
  }

  void place(const char* source, char* target, int ranks) {
    for (int r = 0; r < ranks; ++r) move.from[r] = source + from[r], move.to[r] = target + to[r];
  }

  void expect(const std::vector<char>& source, std::vector<char>& target, int rank, int ranks, int groups) const {
    for (int r = 0; r < ranks; ++r) {
      if (move.with == With::peers ? r == rank : move.with == With::itself && r != rank) continue;
      for (int g = 0; g < groups; ++g)
        for (int b = 0; b < move.batch; ++b)
          for (int h = 0; h < move.heads; ++h)
            for (int row = 0; row < move.rows; ++row) {
              const auto place = [&](const LineSteps& s, std::int64_t group, std::int64_t jump) {
                return g * group + b * s.batch + h * s.head + row * s.row + (row < move.cut ? 0 : jump);
              };
              const std::int64_t i = from[r] + place(move.from_steps, move.from_group, move.from_jump[r]);
              const std::int64_t o = to[r] + place(move.to_steps, move.to_group, move.to_jump[r]);
              std::copy_n(source.begin() + i, move.bytes, target.begin() + o);
            }
    }
  }

  LineMove move;

 private:
  std::int64_t from[peer::kMaxRanks] = {}, to[peer::kMaxRanks] = {};
};

class LineMovesOf : public ::testing::TestWithParam<int> {};

// By few blocks, which stream, and by many; with what comes after an event of all ranks, and without.
TEST_P(LineMovesOf, RandomLines) {
  if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  const int unit = GetParam();
  Memory source(kArea), target(kArea);
  std::vector<char> bytes(kArea);
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed * 131 + static_cast<unsigned>(unit));
    const auto some = [&](int least, int most) { return std::uniform_int_distribution(least, most)(random); };
    const int ranks = some(2, 4), rank = some(0, ranks - 1);
    const bool waits = some(0, 1) == 0, ends = waits && some(0, 1) == 0;
    Ranks all(rank, ranks);
    LineMoves work;
    work.groups = some(1, 3);
    work.count = some(0, 2);
    work.after = waits ? some(0, 1) : 0;
    work.announces = some(0, 5);
    work.blocks = some(0, 1) ? 4 : 40;
    work.ends = ends;
    if (waits) {
      work.awaits = 20, work.awaited = 2;
      for (const int event : {20, 21})
        for (int r = 0; r < ranks; ++r) all.announce(rank, event, r, 1);
    }
    std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<char>(random()); });
    require(cudaMemcpy(source.data, bytes.data(), kArea, cudaMemcpyHostToDevice));
    require(cudaMemset(target.data, 0x5a, kArea));
    std::vector<char> expected(kArea, 0x5a);
    std::int64_t at = 0;
    for (int i = 0; i < work.count + work.after; ++i) {
      const With with[] = {With::all, With::peers, With::itself};
      const int groups = i < work.count ? work.groups : 1;
      RandomMove one(random, unit, ranks, groups, with[some(0, 2)], at);
      ASSERT_LT(at, static_cast<std::int64_t>(kArea));
      one.place(source.data, target.data, ranks);
      one.expect(bytes, expected, rank, ranks, groups);
      work.moves[i] = one.move;
    }
    launch_line_moves(all.view, all.room, work, nullptr);
    require(cudaDeviceSynchronize());
    ASSERT_EQ(target.read(), expected);
    for (int r = 0; r < ranks; ++r)
      for (int event = 0; event < 10; ++event) {
        const bool announced = event >= work.announces && event < work.announces + work.groups;
        ASSERT_EQ(all.word(r, event, rank), announced ? 1u : 0u) << "event " << event << " at rank " << r;
      }
    peer::RoomState state;
    require(cudaMemcpy(&state, all.room.state, sizeof state, cudaMemcpyDeviceToHost));
    ASSERT_EQ(state.calls, ends ? 1u : 0u);
    ASSERT_EQ(all.page->gave_up, 0u);
  }
}
INSTANTIATE_TEST_SUITE_P(Unit, LineMovesOf, ::testing::Values(1, 2, 4, 8, 16));

// A sender that never comes: the kernel gives up, names it, and moves nothing that belongs to it.
TEST(LineMoves, ARankThatSendsNothing) {
  if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  Ranks all(1, 3);
  all.view.limit = 50'000'000;
  all.announce(1, 7, 0, 1);
  all.announce(1, 7, 1, 1);
  Memory source(4096), target(4096);
  LineMoves work;
  work.after = 1;
  work.awaits = 7, work.awaited = 1, work.ends = true, work.blocks = 3;
  LineMove& m = work.moves[0];
  m.batch = m.heads = 1, m.rows = 4, m.bytes = 256, m.cut = 4;
  m.from_steps = m.to_steps = {1024, 1024, 256};
  for (int r = 0; r < 3; ++r) m.from[r] = source.data, m.to[r] = target.data + 1024 * r;
  require(cudaMemset(source.data, 1, 4096));
  launch_line_moves(all.view, all.room, work, nullptr);
  require(cudaDeviceSynchronize());
  EXPECT_EQ(all.page->gave_up, 1u);
  EXPECT_EQ(all.page->waited_for, 2);
  EXPECT_EQ(target.read(), std::vector<char>(4096));
}

// Ranks that exchange, each with a stream: lines to all of them, and once all are there, those that came, elsewhere. By the kernel that
// ends a call and by the one that goes on beside others; call after call, into the same memory.
TEST_P(LineMovesOf, ExchangedByRanksOfOneGpu) {
  if (!testing::has_gpu()) GTEST_SKIP() << "this machine has no GPU";
  peer::load_spinning_kernels();  // none may be loaded while another waits
  constexpr int kRanks = 3, kRows = 60, kCalls = 6;
  const int unit = GetParam(), bytes = unit * 24, part = kRows * bytes, all = kRanks * part;
  std::vector<std::unique_ptr<Ranks>> ranks;
  std::vector<std::unique_ptr<Memory>> source, there, result;
  cudaStream_t streams[kRanks];
  for (int r = 0; r < kRanks; ++r) {
    ranks.push_back(std::make_unique<Ranks>(r, kRanks));
    for (auto* list : {&source, &there, &result}) list->push_back(std::make_unique<Memory>(static_cast<std::size_t>(all)));
    require(cudaStreamCreateWithFlags(&streams[r], cudaStreamNonBlocking));
  }
  for (int r = 0; r < kRanks; ++r)
    for (int p = 0; p < kRanks; ++p)
      ranks[static_cast<std::size_t>(r)]->room.arrivals[p] = ranks[static_cast<std::size_t>(p)]->arrivals.data;
  std::vector<std::vector<char>> sent(kRanks, std::vector<char>(static_cast<std::size_t>(all)));
  std::mt19937 random(static_cast<unsigned>(unit));
  for (int call = 0; call < kCalls; ++call) {
    const bool beside = call % 2 == 1;
    for (std::size_t r = 0; r < kRanks; ++r) {
      std::generate(sent[r].begin(), sent[r].end(), [&] { return static_cast<char>(random()); });
      require(cudaMemcpy(source[r]->data, sent[r].data(), sent[r].size(), cudaMemcpyHostToDevice));
    }
    for (int r = 0; r < kRanks; ++r) {
      const auto at = static_cast<std::size_t>(r);
      LineMoves work;
      work.count = work.after = 1;
      for (LineMove* m : {&work.moves[0], &work.moves[1]}) {
        m->batch = m->heads = 1, m->rows = m->cut = kRows, m->bytes = bytes;
        m->from_steps = m->to_steps = {all, part, bytes};
      }
      for (int p = 0; p < kRanks; ++p) {
        work.moves[0].from[p] = source[at]->data + p * part;
        work.moves[0].to[p] = there[static_cast<std::size_t>(p)]->data + r * part;
        work.moves[1].from[p] = there[at]->data + p * part;
        work.moves[1].to[p] = result[at]->data + p * part;
      }
      work.announces = work.awaits = 5;
      work.awaited = 1;
      work.blocks = beside ? 2 : 20;
      work.ends = !beside;
      launch_line_moves(ranks[at]->view, ranks[at]->room, work, streams[r]);
      if (!beside) continue;
      LineMoves end;
      end.ends = true;
      launch_line_moves(ranks[at]->view, ranks[at]->room, end, streams[r]);
    }
    require(cudaDeviceSynchronize());
    for (std::size_t r = 0; r < kRanks; ++r) {
      ASSERT_EQ(ranks[r]->page->gave_up, 0u) << "rank " << r << " in call " << call << " waited for " << ranks[r]->page->waited_for;
      const std::vector<char> got = result[r]->read();
      for (std::size_t p = 0; p < kRanks; ++p)
        ASSERT_TRUE(std::equal(got.begin() + static_cast<std::ptrdiff_t>(p) * part, got.begin() + static_cast<std::ptrdiff_t>(p + 1) * part,
                               sent[p].begin() + static_cast<std::ptrdiff_t>(r) * part))
            << "from rank " << p << " at rank " << r << " in call " << call;
    }
  }
  for (cudaStream_t stream : streams) cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace tandem::cuda
