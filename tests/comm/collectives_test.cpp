// Every collective × reduction × dtype × axis × group, cell by cell, against the oracle.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <mutex>
#include <random>

#include "comm/oracle.h"
#include "comm/rank_processes.h"
#include "comm/ranks.h"
#include "core/check.h"

namespace tandem {
namespace {

constexpr DType kReducing[] = {DType::f32, DType::f16, DType::bf16, DType::f64, DType::f8e4m3, DType::f8e5m2,
                               DType::i8,  DType::u8,  DType::i16,  DType::i32, DType::i64};
constexpr DType kMoving[] = {DType::f32, DType::f16, DType::bf16, DType::f8e4m3, DType::f8e5m2,
                             DType::i8,  DType::u8,  DType::i32,  DType::i64,    DType::boolean};
constexpr Reduction kReductions[] = {Reduction::sum, Reduction::prod, Reduction::max, Reduction::min, Reduction::avg};
// Pieces so small that even little tensors need several.
const ShmOptions kSmall = {.slot_bytes = 4096, .mail_bytes = 4096};

std::vector<CollectiveCall> variants(Collective kind, int rank_count, int axes) {
  std::vector<CollectiveCall> calls;
  for (int axis = 0; axis < axes; ++axis) {
    CollectiveCall call = {.kind = kind, .axis = axis, .root = axis % rank_count};
    if (kind == Collective::shift) call.shift = axis * 2 - 3;
    if (kind != Collective::all_to_all) calls.push_back(call);
    else
      for (int concat = 0; concat < axes; ++concat) {
        call.split_axis = axis;
        call.concat_axis = concat;
        calls.push_back(call);
      }
  }
  return calls;
}

void every_cell(Group& group, const Shape& shape, std::span<const DType> reducing, std::span<const DType> moving, std::uint64_t seed) {
  for (const CollectiveInfo& row : collectives())
    for (CollectiveCall call : variants(row.kind, group.size(), static_cast<int>(shape.size())))
      for (const DType dtype : row.reduces ? reducing : moving) {
        call.dtype = dtype;
        if (!row.reduces) run_and_check(group, call, shape, ++seed);
        for (const Reduction reduction : kReductions) {
          if (!row.reduces) break;
          call.reduction = reduction;
          run_and_check(group, call, shape, ++seed);
        }
      }
}

class Cells : public testing::TestWithParam<int> {};

TEST_P(Cells, WholeGroup) {
  const std::int64_t n = GetParam();
  run_ranks(GetParam(), [&](Group& group) { every_cell(group, {2 * n, n, 3 * n}, kReducing, kMoving, 1); });
}

TEST_P(Cells, ManyPieces) {
  const std::int64_t n = GetParam();
  constexpr DType some[] = {DType::f32, DType::i8, DType::bf16};
  run_ranks(
      GetParam(),
      [&](Group& group) {
        every_cell(group, {n, 3 * n, 41 * n}, some, some, 2);
      },
      kSmall);
}

TEST_P(Cells, NoElements) {
  const std::int64_t n = GetParam();
  run_ranks(GetParam(), [&](Group& group) { every_cell(group, {n, 0, 3 * n}, kReducing, kMoving, 3); });
}

TEST_P(Cells, InPlace) {
  run_ranks(
      GetParam(),
      [](Group& group) {
        for (const Collective kind : {Collective::all_reduce, Collective::reduce, Collective::broadcast, Collective::shift})
          for (const std::int64_t extent : {1, 1000, 30011}) {
            CollectiveCall call = {.kind = kind, .root = group.size() - 1};
            if (info(kind).reduces) call.reduction = Reduction::sum;
            run_and_check(group, call, {extent}, 4, true);
          }
      },
      kSmall);
}

INSTANTIATE_TEST_SUITE_P(Ranks, Cells, testing::Values(1, 2, 3, 4, 5));

TEST(Collectives, Scalars) {
  run_ranks(3, [](Group& group) {
    for (const Collective kind : {Collective::all_reduce, Collective::reduce, Collective::broadcast, Collective::shift}) {
      CollectiveCall call = {.kind = kind};
      if (info(kind).reduces) call.reduction = Reduction::avg;
      run_and_check(group, call, {}, 5);
    }
  });
}

TEST(Collectives, SubGroups) {
  const std::vector<std::vector<std::vector<int>>> splits = {{{0, 1}, {2, 3}}, {{3, 1}, {0, 2}}, {{2, 0, 3}},
                                                             {{1}, {3, 2, 0}}, {{0, 1, 2, 3}},   {{3, 2, 1, 0}}};
  constexpr DType some[] = {DType::f32, DType::i32, DType::bf16};
  run_ranks(
      4,
      [&](Group& world) {
        for (const auto& lists : splits) {
          const std::unique_ptr<Group> group = world.split(lists);
          bool listed = false;
          for (const std::vector<int>& list : lists)
            for (std::size_t i = 0; i < list.size(); ++i)
              if (list[i] == world.rank()) {
                listed = true;
                check(group && group->rank() == static_cast<int>(i) && std::ranges::equal(group->members(), list), "place in the group");
              }
          check(listed == (group != nullptr), "a rank in no list has no group");
          if (group) every_cell(*group, {12, 12, 24}, some, some, 6);
          run_and_check(world, {.kind = Collective::all_reduce, .reduction = Reduction::sum}, {100}, 7);
        }
      },
      kSmall);
}

TEST(Collectives, GroupsOfGroupsAndColors) {
  run_ranks(5, [](Group& world) {
    const auto odd = split_by_color(world, world.rank() == 0 ? -1 : world.rank() % 2);
    check((odd == nullptr) == (world.rank() == 0), "a negative color is in no group");
    if (odd) {
      check(odd->size() == 2 && odd->members()[0] == (world.rank() % 2 ? 1 : 2), "members by color");
      const auto turned = odd->split({{1, 0}});
      check(turned->members()[0] == (world.rank() % 2 ? 3 : 4), "world ranks in the order of the list");
      for (int i = 0; i < 20; ++i) {
        run_and_check(*turned, {.kind = Collective::all_gather}, {3, 2}, 8);
        run_and_check(*odd, {.kind = Collective::reduce_scatter, .reduction = Reduction::max, .axis = 1}, {3, 2}, 9);
      }
    }
    run_and_check(world, {.kind = Collective::all_to_all}, {5}, 10);
  });
}

TEST(Collectives, LargeMessages) {
  const auto body = [](Group& group) {
    const std::int64_t n = group.size();
    for (const CollectiveInfo& row : collectives()) {
      CollectiveCall call = {.kind = row.kind, .axis = 1, .split_axis = 1, .concat_axis = 0, .root = 1};
      if (row.reduces) call.reduction = Reduction::sum;
      run_and_check(group, call, {17, n * 13, 421}, 11);
    }
    for (const std::int64_t extent : {8191, 8192, 8193, 65535, 300007})
      run_and_check(group, {.kind = Collective::all_reduce, .reduction = Reduction::sum, .dtype = DType::f16}, {extent}, 12);
  };
  run_ranks(3, body);
  run_rank_processes(2, body);
}

TEST(Collectives, NotANumberPropagates) {
  run_ranks(3, [](Group& group) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64, DType::f8e4m3, DType::f8e5m2})
      for (const Reduction reduction : kReductions) {
        std::vector<Tensor> inputs;
        for (int r = 0; r < 3; ++r) {
          std::vector<double> values(70, r + 1.0);
          values[static_cast<std::size_t>(r)] = NAN;
          values[69] = dtype == DType::f8e4m3 ? 448 : INFINITY;
          inputs.push_back(Tensor::of(dtype, {70}, values));
        }
        if (dtype == DType::f8e4m3 && reduction != Reduction::max && reduction != Reduction::min) continue;
        Tensor out(dtype, {70});
        const Shape dims = {70};
        const CollectiveCall call = {.kind = Collective::all_reduce,
                                     .reduction = reduction,
                                     .dtype = dtype,
                                     .dims = dims,
                                     .in = inputs[static_cast<std::size_t>(group.rank())].data(),
                                     .out = out.mutable_data()};
        group.run(call);
        for (int i = 0; i < 3; ++i) check(std::isnan(out.at(i)), "NaN of any rank");
        check(!std::isnan(out.at(3)), "no NaN elsewhere");
        check(out.at(69) == (dtype == DType::f8e4m3 ? 448 : INFINITY), "infinity");
      }
  });
}

// The same bits on all ranks, and in every run.
TEST(Collectives, BitwiseReproducible) {
  std::vector<std::vector<std::byte>> first;
  for (int repeat = 0; repeat < 3; ++repeat) {
    std::vector<std::vector<std::byte>> now;
    std::mutex mutex;
    run_ranks(4, [&](Group& group) {
      std::vector<std::byte> all;
      for (const std::int64_t extent : {5, 1000, 9001, 200003})
        for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f8e5m2}) {
          const Tensor out =
              run_and_check(group, {.kind = Collective::all_reduce, .reduction = Reduction::sum, .dtype = dtype}, {extent}, 13);
          all.insert(all.end(), out.bytes().begin(), out.bytes().end());
        }
      const auto blobs = group.exchange(all);
      for (const auto& blob : blobs) check(blob == all, "equal bits on all ranks");
      const std::lock_guard lock(mutex);
      now.push_back(std::move(all));
    });
    if (repeat == 0) first = now;
    EXPECT_EQ(first, now);
  }
}

class Mixed {
 public:
  Mixed(Group& world, std::uint64_t seed) : world_(world), random_(seed) {
    halves_ = world.split({{0, 2}, {3, 1}});
    three_ = world.split({{2, 1, 3}});
  }

  void step() {
    const std::uint64_t seed = random_();
    const int what = pick(14);
    if (what == 0) return send_in_a_ring(seed);
    if (what == 1) return exchange(seed);
    Group* group = what < 5 ? halves_.get() : what < 8 ? three_.get() : &world_;
    const auto& row = collectives()[static_cast<std::size_t>(pick(static_cast<int>(collectives().size())))];
    CollectiveCall call = {.kind = row.kind, .root = pick(2), .shift = pick(7) - 3};
    const DType dtype = kReducing[pick(11)];
    call.dtype = dtype;
    if (const int reduction = pick(5); row.reduces) call.reduction = kReductions[reduction];
    Shape shape;
    for (int i = 1 + pick(3); i > 0; --i) shape.push_back(12 * pick(i == 1 ? 9 : 4));
    call.axis = pick(static_cast<int>(shape.size()));
    call.split_axis = pick(static_cast<int>(shape.size()));
    call.concat_axis = pick(static_cast<int>(shape.size()));
    if (group) run_and_check(*group, call, shape, seed);
  }

 private:
  int pick(int below) { return static_cast<int>(random_() % static_cast<std::uint64_t>(below)); }

  void send_in_a_ring(std::uint64_t seed) {
    const Tensor mine = random_input(DType::u8, {1 + static_cast<std::int64_t>(seed % 8000)}, world_.rank(), seed);
    const int n = world_.size(), next = (world_.rank() + 1) % n, last = (world_.rank() + n - 1) % n;
    Tensor got(DType::u8, mine.shape());
    if (world_.rank() % 2 == 0) world_.send(mine.bytes(), next);
    world_.recv({got.mutable_data(), got.size_bytes()}, last);
    if (world_.rank() % 2 == 1) world_.send(mine.bytes(), next);
    check(std::ranges::equal(got.bytes(), random_input(DType::u8, mine.shape(), last, seed).bytes()), "what was sent arrives");
  }

  void exchange(std::uint64_t seed) {
    const auto blob = [&](int rank) { return random_input(DType::u8, {static_cast<std::int64_t>((seed >> rank) % 9000)}, rank, seed); };
    const auto blobs = world_.exchange(blob(world_.rank()).bytes());
    for (int r = 0; r < world_.size(); ++r)
      check(std::ranges::equal(blobs[static_cast<std::size_t>(r)], blob(r).bytes()), "blobs of any sizes arrive by rank");
  }

  Group& world_;
  std::mt19937_64 random_;
  std::unique_ptr<Group> halves_, three_;
};

std::uint64_t fresh_seed() {
  const char* given = std::getenv("TANDEM_TEST_SEED");
  const std::uint64_t seed = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "TANDEM_TEST_SEED=" << seed << "\n";
  return seed;
}

TEST(Collectives, RandomSequencesOnThreads) {
  const std::uint64_t seed = fresh_seed();
  run_ranks(
      4,
      [&](Group& world) {
        Mixed mixed(world, seed);
        for (int i = 0; i < 300; ++i) mixed.step();
      },
      kSmall);
}

TEST(Collectives, RandomSequencesOnProcesses) {
  const std::uint64_t seed = fresh_seed();
  run_rank_processes(
      4,
      [&](Group& world) {
        Mixed mixed(world, seed);
        for (int i = 0; i < 300; ++i) mixed.step();
      },
      kSmall);
}

TEST(Collectives, CheckedCalls) {
  run_ranks(3,
            [](Group& group) {
              every_cell(group, {3, 6}, std::array{DType::f32}, std::array{DType::i8}, 14);
            },
            {.slot_bytes = 4096, .check = true});
}

TEST(Collectives, SendAndReceiveLargeAndEmpty) {
  run_ranks(2, [](Group& group) {
    for (const std::int64_t size : {0, 1, 65536, 65537, 1000003}) {
      const Tensor sent = random_input(DType::u8, {size}, 0, 15);
      Tensor got(DType::u8, {size});
      if (group.rank() == 0) group.send(sent.bytes(), 1);
      else group.recv({got.mutable_data(), got.size_bytes()}, 0);
      check(group.rank() == 0 || std::ranges::equal(got.bytes(), sent.bytes()), "what was sent arrives");
    }
  });
}

}  // namespace
}  // namespace tandem
