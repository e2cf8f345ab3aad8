// Ranks whose GPUs are on two hosts, tried on one machine: NCCL takes each for a host of its own and goes by sockets; they have no memory
// in common. With one GPU they share it, as processes.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <iostream>

#include "comm/two_hosts.h"
#include "core/check.h"
#include "gpu/context_rank.h"
#include "gpu/gpu_ranks.h"
#include "tandem/nccl.h"

namespace tandem::test {
namespace {

using namespace std::chrono_literals;

class SeveralHosts : public ::testing::TestWithParam<Apart> {
 protected:
  void SetUp() override {
    if (gpu_count() < 1) GTEST_SKIP() << "this machine has no GPU";
    if (const std::string why = cannot_be(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
  std::vector<RankOutcome> outcomes(const std::function<void(TcpPair&)>& body) const {
    return ranks_on_two_hosts(
        GetParam(),
        [&](TcpPair& pair) {
          setenv("NCCL_HOSTID", host_name(pair.rank()).c_str(), 1);
          setenv("NCCL_SOCKET_IFNAME", interface_of(GetParam()).c_str(), 1);
          setenv("NCCL_IB_DISABLE", "1", 1);
          body(pair);
        },
        50s);
  }
  void run(const std::function<void(TcpPair&)>& body) const {
    for (const RankOutcome& outcome : outcomes(body)) {
      EXPECT_TRUE(outcome.finished) << "a rank does not end";
      EXPECT_TRUE(outcome.ok) << outcome.text;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(By, SeveralHosts, ::testing::Values(Apart::names, Apart::networks),
                         [](const auto& info) { return info.param == Apart::names ? "names" : "networks"; });

TEST_P(SeveralHosts, CollectivesGoByNccl) {
  run([](TcpPair& pair) {
    GpuRank rank(pair, "");
    check(rank.group != nullptr, rank.why);
    check(rank.group->backend() == "nccl", "NCCL goes between hosts");
    std::uint64_t seed = 1;
    for (const DType dtype : {DType::f32, DType::bf16, DType::i32})
      for (const Shape& shape : {Shape{4, 6}, Shape{2, 100'000}}) {
        for (const Collective kind : {Collective::all_reduce, Collective::reduce_scatter, Collective::reduce})
          run_and_check_op(rank, *rank.group, {.kind = kind, .reduction = Reduction::sum, .dtype = dtype}, shape, ++seed);
        for (const Collective kind : {Collective::all_gather, Collective::all_to_all, Collective::broadcast, Collective::gather,
                                      Collective::scatter, Collective::shift})
          run_and_check_op(rank, *rank.group, {.kind = kind, .dtype = dtype}, shape, ++seed);
      }
    pair.exchange({});
  });
}

TEST_P(SeveralHosts, PeerMemoryIsRefusedNamingRanksAndHosts) {
  run([](TcpPair& pair) {
    check_refused(ErrorCode::unsupported, "rank 0 is on the host 'host-0', rank 1 on 'host-1'", [&] { GpuRank(pair, "peer"); });
  });
}

TEST_P(SeveralHosts, ContextsGiveWhatOneRankGives) {
  run([](TcpPair& pair) {
    ContextRank rank(pair);
    check_calls(rank, 8);
    pair.exchange({});
  });
}

TEST_P(SeveralHosts, ACommunicatorOfTheCallersJoinsThem) {
  run([](TcpPair& pair) {
    const std::shared_ptr<Device> device = open_device("cuda", pair.rank());
    const OnDevice on_device(*device);
    const ncclComm_t comm = communicator(pair, 2);
    {
      ContextRank rank(std::shared_ptr<Group>(group_from_nccl(comm)));
      check_calls(rank, 8);
      pair.exchange({});
    }
    nccl::check(nccl::api().ncclCommDestroy(comm), "its own end");
  });
}

// In replay. By the group's connection, or by NCCL's.
TEST_P(SeveralHosts, ARankThatIsKilledIsNoticed) {
  for (const bool lent : {false, true}) {
    const auto ends = outcomes([lent](TcpPair& pair) {
      const std::shared_ptr<Device> device = open_device("cuda", pair.rank());
      const OnDevice on_device(*device);
      const std::shared_ptr<Group> group =
          lent ? std::shared_ptr<Group>(group_from_nccl(communicator(pair, 2))) : std::shared_ptr<Group>(&pair, [](Group*) {});
      ContextRank rank(group, 8, 1);
      for (int call = 0; call < 5; ++call) rank.run();
      pair.exchange({});
      if (pair.rank() == 1) raise(SIGKILL);
      const std::int64_t start = monotonic_ns();
      try {
        for (int call = 0; call < 1000; ++call) rank.run();
      } catch (const Error&) {
        check(monotonic_ns() - start < 4'000'000'000, "out within four seconds");
        throw;
      }
    });
    ASSERT_TRUE(ends[0].finished) << "rank 0 waits for ever";
    EXPECT_TRUE(ends[0].code == ErrorCode::rank_failed || (lent && ends[0].code == ErrorCode::timeout)) << ends[0].text;
    EXPECT_TRUE(lent || ends[0].rank == 1) << ends[0].text;
    std::cout << (lent ? "a communicator of the caller's: " : "a group of the caller's: ") << ends[0].text << "\n";
  }
}

}  // namespace
}  // namespace tandem::test
