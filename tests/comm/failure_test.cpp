// Who is named, with which error, how soon, when something goes wrong between ranks.
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>

#include <atomic>
#include <barrier>
#include <thread>

#include "comm/oracle.h"
#include "comm/rank_processes.h"
#include "comm/ranks.h"
#include "core/check.h"

namespace tandem {
namespace {

using namespace std::chrono_literals;

void sum(Group& group, std::optional<Deadline> deadline = {}, std::int64_t extent = 100) {
  std::vector<float> in(static_cast<std::size_t>(extent), 1.0f), out(in.size());
  const std::int64_t dims[] = {extent};
  group.run({.kind = Collective::all_reduce,
             .reduction = Reduction::sum,
             .dims = dims,
             .in = in.data(),
             .out = out.data(),
             .deadline = deadline});
  check(out[0] == static_cast<float>(group.size()), "the sum of ones");
}

struct Caught {
  ErrorCode code = ErrorCode::internal;
  int rank = -2;
  std::string text;
  double seconds = 0;
};

// Runs every rank on a thread and keeps what each threw; unlike run_ranks, nobody tells the others.
std::vector<Caught> catch_all(int world, const std::function<void(Group&, ShmRegion&)>& body, const ShmOptions& options = {}) {
  const auto region = ShmRegion::create(world, options);
  std::vector<Caught> caught(static_cast<std::size_t>(world));
  std::barrier all_done(world);
  {
    std::vector<std::jthread> threads;
    for (int r = 0; r < world; ++r)
      threads.emplace_back([&, r] {
        const auto group = region->attach(r);
        const std::int64_t start = monotonic_ns();
        Caught& mine = caught[static_cast<std::size_t>(r)];
        try {
          body(*group, *region);
        } catch (const Error& e) {
          mine = {e.code(), e.rank(), e.what(), static_cast<double>(monotonic_ns() - start) * 1e-9};
        }
        // Stay until all have finished, so that nobody sees anybody leave.
        all_done.arrive_and_wait();
      });
  }
  return caught;
}

TEST(Failure, MissingRankAtRendezvousIsNamed) {
  const auto region = ShmRegion::create(4);
  std::vector<std::jthread> threads;
  for (const int rank : {0, 2})
    threads.emplace_back([&, rank] {
      try {
        region->attach(rank, Deadline::after(300ms));
        ADD_FAILURE() << "attach returned";
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::timeout);
        EXPECT_EQ(e.rank(), 1);
        EXPECT_NE(e.message().find("rank 1, 3 did not join"), std::string::npos) << e.what();
      }
    });
}

TEST(Failure, RankThatSkipsACollectiveIsNamed) {
  const auto caught = catch_all(3, [](Group& group, ShmRegion& region) {
    sum(group);
    group.mark(17);
    if (group.rank() == 1) {
      while (true) {
        std::this_thread::sleep_for(5ms);
        region.throw_if_failed();
      }
    }
    sum(group, Deadline::after(300ms));
  });
  for (const Caught& c : caught) {
    EXPECT_EQ(c.code, ErrorCode::timeout);
    EXPECT_EQ(c.rank, 1);
    EXPECT_NE(c.text.find("last completed step is 17"), std::string::npos) << c.text;
    EXPECT_NE(c.text.find("all_reduce(sum f32 [100])"), std::string::npos) << c.text;
    EXPECT_GE(c.seconds, 0.29);
    EXPECT_LT(c.seconds, 1.3);
  }
}

TEST(Failure, ProgressMarksExtendTheDeadline) {
  run_ranks(2, [](Group& group) {
    if (group.rank() == 1)
      for (int step = 0; step < 10; ++step) {
        std::this_thread::sleep_for(100ms);
        group.mark(step);
      }
    sum(group, Deadline::after(500ms));
  });
}

TEST(Failure, TheRankAtTheEndOfTheChainIsNamed) {
  const auto caught = catch_all(3, [](Group& world, ShmRegion& region) {
    const auto low = world.split({{0, 1}}), high = world.split({{1, 2}});
    if (world.rank() == 0) sum(*low, Deadline::after(400ms));
    if (world.rank() == 1) sum(*high, Deadline::after(600ms));
    while (true) {
      std::this_thread::sleep_for(5ms);
      region.throw_if_failed();
    }
  });
  for (const Caught& c : caught) {
    EXPECT_EQ(c.code, ErrorCode::timeout);
    EXPECT_EQ(c.rank, 2) << c.text;
  }
}

TEST(Failure, KilledProcessIsNamedSoon) {
  for (const bool stopped_first : {false, true}) {
    RankProcesses ranks(3, [&](Group& group) {
      sum(group);
      if (group.rank() == 2) raise(stopped_first ? SIGSTOP : SIGKILL);
      sum(group);
    });
    std::this_thread::sleep_for(300ms);
    if (stopped_first) ranks.signal(2, SIGKILL);
    const auto outcomes = ranks.wait(10s);
    EXPECT_FALSE(outcomes[2].finished);
    for (const int r : {0, 1}) {
      const RankOutcome& o = outcomes[static_cast<std::size_t>(r)];
      ASSERT_TRUE(o.finished);
      EXPECT_EQ(o.code, ErrorCode::rank_failed);
      EXPECT_EQ(o.rank, 2);
      EXPECT_LT(o.seconds, 2.0);
    }
  }
}

TEST(Failure, StoppedProcessIsNamedAfterTheDeadline) {
  RankProcesses ranks(3, [&](Group& group) {
    sum(group);
    if (group.rank() == 1) raise(SIGSTOP);
    sum(group, Deadline::after(500ms));
  });
  const auto outcomes = ranks.wait(3s);
  EXPECT_FALSE(outcomes[1].finished);
  for (const int r : {0, 2}) {
    const RankOutcome& o = outcomes[static_cast<std::size_t>(r)];
    ASSERT_TRUE(o.finished);
    EXPECT_EQ(o.code, ErrorCode::timeout);
    EXPECT_EQ(o.rank, 1);
    EXPECT_LT(o.seconds, 2.0);
  }
}

TEST(Failure, RankThatLeavesIsNamed) {
  RankProcesses ranks(2, [&](Group& group) {
    sum(group);
    if (group.rank() == 0) sum(group);
  });
  const auto outcomes = ranks.wait(10s);
  EXPECT_TRUE(outcomes[1].ok);
  EXPECT_EQ(outcomes[0].code, ErrorCode::rank_failed);
  EXPECT_EQ(outcomes[0].rank, 1);
  EXPECT_LT(outcomes[0].seconds, 2.0);
}

TEST(Failure, SupervisorEndsAllWaits) {
  RankProcesses ranks(3, [&](Group& group) {
    sum(group);
    if (group.rank() != 1) sum(group);
    else std::this_thread::sleep_for(1s), sum(group);
  });
  std::this_thread::sleep_for(300ms);
  ranks.region().mark_failed(1, "killed by the supervisor");
  const auto outcomes = ranks.wait(10s);
  for (const RankOutcome& o : outcomes) {
    EXPECT_EQ(o.code, ErrorCode::rank_failed);
    EXPECT_EQ(o.rank, 1);
    EXPECT_NE(o.text.find("killed by the supervisor"), std::string::npos) << o.text;
  }
  EXPECT_LT(outcomes[0].seconds, 1.0);
}

TEST(Failure, AbortWakesWaitersAndStays) {
  const auto caught = catch_all(3, [](Group& group, ShmRegion&) {
    if (group.rank() == 1) {
      std::this_thread::sleep_for(100ms);
      group.abort("the user had enough");
    }
    try {
      sum(group);
      ADD_FAILURE() << "an aborted collective returned";
    } catch (const Error&) {
    }
    group.exchange({});  // repeats the error
  });
  for (const Caught& c : caught) {
    EXPECT_EQ(c.code, ErrorCode::aborted);
    EXPECT_EQ(c.rank, 1);
    EXPECT_NE(c.text.find("the user had enough"), std::string::npos) << c.text;
    EXPECT_NE(c.text.find("no longer usable"), std::string::npos) << c.text;
    EXPECT_LT(c.seconds, 1.0);
  }
}

TEST(Failure, DisagreementNamesBothCalls) {
  struct Row {
    CollectiveCall a, b;
    const char* text;
  };
  static const std::int64_t four[] = {4}, eight[] = {2, 4};
  std::vector<float> in(8), out(16);
  const CollectiveCall plain = {.kind = Collective::broadcast, .dims = four, .in = in.data()};
  std::vector<Row> rows(6, {plain, plain, ""});
  rows[0].b.kind = Collective::all_gather, rows[0].text = "rank 0 is in broadcast(f32 [4] root 0), rank 1 in all_gather(f32 [4] axis 0)";
  rows[1].b.dims = eight, rows[1].text = "broadcast(f32 [2,4] root 0)";
  rows[2].b.dtype = DType::i32, rows[2].text = "broadcast(i32 [4] root 0)";
  rows[3].b.root = 1, rows[3].text = "root 1";
  rows[4].a = rows[4].b = {.kind = Collective::all_reduce, .reduction = Reduction::sum, .dims = four, .in = in.data()};
  rows[4].b.reduction = Reduction::max, rows[4].text = "all_reduce(max f32 [4])";
  rows[5].a = rows[5].b = {.kind = Collective::shift, .dims = four, .in = in.data()};
  rows[5].b.shift = 2, rows[5].text = "by 2";
  for (const bool check_all : {false, true})
    for (const Row& row : rows) {
      const auto caught = catch_all(2,
                                    [&](Group& group, ShmRegion&) {
                                      std::vector<float> mine(16, -1.0f);
                                      CollectiveCall call = group.rank() == 0 ? row.a : row.b;
                                      call.out = mine.data();
                                      try {
                                        group.run(call);
                                      } catch (const Error&) {
                                        check(mine == std::vector<float>(16, -1.0f), "nothing is written before all agree");
                                        throw;
                                      }
                                    },
                                    {.check = check_all});
      for (const Caught& c : caught) {
        EXPECT_EQ(c.code, ErrorCode::mismatch) << c.text;
        EXPECT_NE(c.text.find(row.text), std::string::npos) << c.text;
        EXPECT_LT(c.seconds, 1.0);
      }
    }
}

TEST(Failure, DisagreementBetweenOtherOperations) {
  const auto expect_mismatch = [](const std::function<void(Group&)>& body) {
    for (const Caught& c : catch_all(2, [&](Group& group, ShmRegion&) { body(group); })) EXPECT_EQ(c.code, ErrorCode::mismatch) << c.text;
  };
  expect_mismatch([](Group& g) { g.rank() == 0 ? sum(g) : static_cast<void>(g.exchange({})); });
  expect_mismatch([](Group& g) { g.split({{g.rank(), 1 - g.rank()}}); });
  expect_mismatch([](Group& g) {
    std::vector<std::byte> data(16);
    if (g.rank() == 0) g.send(data, 1), sum(g);
    else g.recv(std::span(data).first(8), 0);
  });
}

TEST(Failure, AgreementNamesWhatDiffers) {
  run_ranks(3, [](Group& group) {
    const std::vector<std::string> names = {"the plan", "the number of collectives"};
    std::vector<std::uint64_t> values = {7, 9};
    require_agreement(group, values, names);
    if (group.rank() == 2) values[1] = 8;
    try {
      require_agreement(group, values, names);
      check(false, "must not agree");
    } catch (const Error& e) {
      check(e.code() == ErrorCode::mismatch && e.rank() == 2, "names the rank");
      check(e.message() == "ranks 0 and 2 disagree on the number of collectives: 9 and 8", "names the value");
    }
    sum(group);  // still usable
  });
}

TEST(Failure, RunRanksReportsTheFirstFailure) {
  try {
    run_ranks(4, [](Group& group) {
      const auto half = group.split({{0, 1}, {2, 3}});
      if (group.rank() == 3) fail(ErrorCode::invalid_model, "it is broken");
      sum(*half);
      sum(group);
    });
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_model);
    EXPECT_EQ(e.rank(), 3);
    EXPECT_EQ(e.message(), "it is broken");
  }
}

TEST(Failure, RanksJoinOnce) {
  EXPECT_THROW(ShmRegion::create(0), Error);
  EXPECT_THROW(ShmRegion::open(0), Error);
  const auto region = ShmRegion::create(1);
  EXPECT_THROW(region->attach(1), Error);
  const auto group = region->attach(0);
  EXPECT_THROW(region->attach(0), Error);
  EXPECT_TRUE(group->progress(0).attached);
}

// ---- more ranks than cores, and what groups cost

double seconds_of_sums(int world, int count, bool one_core) {
  std::atomic<double>* seconds = nullptr;
  const auto memory = SharedMemory::create("seconds", 4096).map(0, 4096);
  seconds = new (memory->data()) std::atomic<double>(0);
  run_rank_processes(world, [&](Group& group) {
    if (one_core) {
      cpu_set_t all, first;
      sched_getaffinity(0, sizeof all, &all);
      CPU_ZERO(&first);
      int core = 0;
      while (!CPU_ISSET(core, &all)) ++core;
      CPU_SET(core, &first);
      check(sched_setaffinity(0, sizeof first, &first) == 0, "sched_setaffinity");
    }
    sum(group);
    const std::int64_t start = monotonic_ns();
    for (int i = 0; i < count; ++i) sum(group, {}, 1024);
    if (group.rank() == 0) *seconds = static_cast<double>(monotonic_ns() - start) * 1e-9;
  });
  return *seconds;
}

#ifdef __SANITIZE_THREAD__
constexpr double kSlower = 5;
#else
constexpr double kSlower = 1;
#endif

TEST(Crowded, TwoRanksOnOneCore) { EXPECT_LT(seconds_of_sums(2, 2000, true), 4.0 * kSlower); }
TEST(Crowded, EightRanks) { EXPECT_LT(seconds_of_sums(8, 500, false), 8.0 * kSlower); }

TEST(Memory, DoesNotGrowWithMessages) {
  const auto region = ShmRegion::create(2);
  std::vector<std::jthread> threads;
  for (int r = 0; r < 2; ++r)
    threads.emplace_back([&, r] {
      const auto group = region->attach(r);
      sum(*group, {}, 16 << 20);
    });
  threads.clear();
  EXPECT_LE(region->resident_bytes(), 2u << 20);
}

TEST(Memory, SplitsGiveTheirsBack) {
  const auto region = ShmRegion::create(2);
  std::vector<std::jthread> threads;
  for (int r = 0; r < 2; ++r)
    threads.emplace_back([&, r] {
      const auto group = region->attach(r);
      for (int i = 0; i < 50; ++i) sum(*group->split({{1, 0}}), {}, 300000);
      sum(*group);
    });
  threads.clear();
  EXPECT_LE(region->resident_bytes(), 2u << 20);
}

}  // namespace
}  // namespace tandem
