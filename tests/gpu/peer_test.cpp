// Collectives of GPUs over peer memory, against the oracle of all collectives. On a machine with one GPU its ranks share it, as threads;
// without a GPU every test is skipped and says so. TANDEM_TEST_RANKS sets the number of ranks (else the GPUs, or 3 that share one).
#include <iostream>

#include "comm/forwarding_group.h"
#include "comm/ranks.h"
#include "gpu/peer_rank.h"

namespace tandem::test {
namespace {

TEST_F(Peers, EveryCollectiveReductionDtypeAndAxis) {
  run_ranks(rank_count(), [](Group& control) {
    const PeerRank rank(control);
    const std::int64_t n = control.size();
    const int cells = every_cell(rank, *rank.group, {2 * n, n, 3 * n}, 1);
    if (control.rank() == 0) std::cout << "[ cuda ] " << cells << " rows on peer\n";
  });
}

TEST_F(Peers, SubGroups) {
  if (rank_count() < 3) GTEST_SKIP() << "two ranks have no groups";
  run_ranks(rank_count(), [](Group& control) {
    const PeerRank rank(control);
    const std::unique_ptr<Group> part = rank.group->split({{2, 0}, {1}});
    rank.meet_if_shared();  // the others make their parts
    if (part) {
      check(part->backend() == "peer", "a group of the same kind");
      for (const Collective kind : {Collective::all_reduce, Collective::all_gather, Collective::all_to_all}) {
        CollectiveCall call = {.kind = kind};
        if (kind == Collective::all_reduce) call.reduction = Reduction::sum;
        check_on_gpu(rank, *part, call, {6, 50}, 2);
      }
    }
    check_on_gpu(rank, *rank.group, {.kind = Collective::all_reduce, .reduction = Reduction::sum}, {100}, 3);
    rank.meet_if_shared();  // before parts go
  });
}

// From a single element to what takes several launches, in memory that is aligned and in memory that is not, in place and not.
TEST_F(Peers, SizesOfAllReduce) {
  run_ranks(rank_count(), [](Group& control) {
    const PeerRank rank(control);
    std::uint64_t seed = 100;
    for (const DType dtype : {DType::f32, DType::bf16, DType::i32})
      for (const std::int64_t count : {1, 3, 8, 1000, 4096, 4099, 32768, 100'003, 262'144})
        for (const bool shifted : {false, true})
          for (const bool in_place : {false, true})
            check_on_gpu(rank, *rank.group, {.kind = Collective::all_reduce, .reduction = Reduction::sum, .dtype = dtype}, {count}, ++seed,
                         in_place, shifted);
    // With fewer blocks, as kernels have that share a GPU, less takes several launches.
    const std::int64_t large = is_slow() ? 1'300'001 : 5'000'001, gathered = is_slow() ? 300'001 : 1'000'001;
    check_on_gpu(rank, *rank.group, {.kind = Collective::all_reduce, .reduction = Reduction::avg, .dtype = DType::f16}, {large}, ++seed);
    check_on_gpu(rank, *rank.group, {.kind = Collective::all_gather, .dtype = DType::bf16}, {gathered}, ++seed);
    check_on_gpu(rank, *rank.group, {.kind = Collective::all_to_all, .dtype = DType::f32, .split_axis = 1, .concat_axis = 0},
                 {64, 24 * control.size(), 128}, ++seed);
    check_on_gpu(rank, *rank.group, {.kind = Collective::reduce_scatter, .reduction = Reduction::sum, .dtype = DType::bf16, .axis = 1},
                 {64, 24 * control.size(), 128}, ++seed);
  });
}

TEST_F(Peers, NotANumberArrives) {
  run_ranks(rank_count(), [](Group& control) {
    const PeerRank rank(control);
    for (const std::size_t bytes : {std::size_t{64}, std::size_t{8} << 20}) {
      std::vector<std::uint32_t> words(bytes / 4,
                                       control.rank() == 0 ? 0xffffffffu : 0x3f803f80u);  // what an empty word looks like, and ones
      words[1] = 0x3f803f80u;
      Buffer in(bytes), out(bytes);
      rank.copy(in.at(), words.data(), bytes);
      const Shape shape = {static_cast<std::int64_t>(bytes / 2)};
      rank.group->run({.kind = Collective::all_reduce,
                       .reduction = Reduction::max,
                       .dtype = DType::bf16,
                       .dims = shape,
                       .stream = rank.handle,
                       .in = in.at(),
                       .out = out.at()});
      rank.wait();
      std::vector<std::uint16_t> got(bytes / 2);
      rank.copy(got.data(), out.at(), bytes);
      for (std::size_t i = 0; i < got.size(); ++i)
        if (i == 2 || i == 3) check(got[i] == 0x3f80, "a number");
        else check((got[i] & 0x7fff) > 0x7f80, "not a number");
    }
  });
}

// The same bits on all ranks, where the sum depends on the order.
TEST_F(Peers, EqualBitsOnAllRanks) {
  run_ranks(rank_count(), [](Group& control) {
    const PeerRank rank(control);
    for (const std::int64_t count : {1000, 50'000, 3'000'000}) {
      const Shape shape = {count};
      const Tensor mine = random_input(DType::f32, shape, control.rank(), 5);
      Buffer in(mine.size_bytes()), out(mine.size_bytes());
      rank.copy(in.at(), mine.data(), mine.size_bytes());
      rank.group->run({.kind = Collective::all_reduce,
                       .reduction = Reduction::sum,
                       .dims = shape,
                       .stream = rank.handle,
                       .in = in.at(),
                       .out = out.at()});
      rank.wait();
      std::vector<std::byte> got(mine.size_bytes());
      rank.copy(got.data(), out.at(), got.size());
      for (const auto& theirs : control.exchange(got)) check(theirs == got, "equal bits on all ranks");
    }
  });
}

// Of another group; in one of its ranks' agreements this rank says that it is in trouble. Who agrees tells nothing.
class InTrouble final : public ForwardingGroup {
 public:
  InTrouble(Group& of, int agreement) : ForwardingGroup(of), left_(agreement) {}
  std::vector<std::vector<std::byte>> exchange(std::span<const std::byte> blob, std::optional<Deadline> deadline) override {
    constexpr std::string_view kTrouble = "-it is a test";
    return ForwardingGroup::exchange(blob.empty() && left_-- == 0 ? std::as_bytes(std::span(kTrouble)) : blob, deadline);
  }

 private:
  int left_;
};

// Whatever a rank has made before another one fails goes: pages that were mapped where a page is still known to CUDA are not taken.
TEST_F(Peers, ARankInTroubleLeavesNothingOfTheOthers) {
  run_ranks(rank_count(), [](Group& control) {
    int agreement = 0;
    for (bool made = false; !made; ++agreement)
      for (int again = 0; again < 3 && !made; ++again) {
        InTrouble last(control, control.rank() + 1 == control.size() ? agreement : -1);
        try {
          const PeerRank rank(last);
          check_on_gpu(rank, *rank.group, {.kind = Collective::all_reduce, .reduction = Reduction::sum}, {100}, 3);
          made = true;
        } catch (const Error& error) {
          if (error.message().find(fmt::format("rank {}: it is a test", control.size() - 1)) == std::string::npos) throw;
        }
        control.exchange({});
      }
    check(agreement > 6, "ranks agree after each part of a group");
  });
}

}  // namespace
}  // namespace tandem::test
