// What carries collectives between GPUs, by where they are and what is asked for. GPUs and NCCL are ones of the tests (nccl_stub.cpp); the
// ranks of two hosts are in networks of their own, or only say that they are on two.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <map>

#include "comm/gpu_group.h"
#include "comm/gpu_wait.h"
#include "comm/nccl_stub.h"
#include "comm/two_hosts.h"
#include "core/check.h"
#include "support/fake_gpu.h"

namespace tandem::test {
namespace {

using namespace std::chrono_literals;
using Variables = std::map<std::string, std::string>;

NcclStub& stub() {
  static NcclStub* found = [] {
    setenv("TANDEM_CUDA_LIBRARIES", TANDEM_NCCL_STUB_FOLDER, 1);
    void* library = dlopen(TANDEM_NCCL_STUB_FOLDER "/libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    check(library != nullptr, "the library that stands in for NCCL can be opened");
    return reinterpret_cast<decltype(&nccl_stub)>(dlsym(library, "nccl_stub"))();
  }();
  return *found;
}

void set(const Variables& variables) {
  for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
}

// What the ranks' group is called, or why there is none. Each GPU's name is of its rank.
std::string choice(Group& control, const std::string& backend = "", const std::string& gpu = "") {
  FakeGpu device(gpu.empty() ? fmt::format("GPU-{}", control.rank()) : gpu);
  std::string why;
  const auto group = make_gpu_group(control, device, {.backend = backend, .deadline = Deadline::after(10s)}, &why);
  control.exchange({});
  return group ? std::string(group->backend()) : "none: " + why;
}

void expect_ok(const std::vector<RankOutcome>& outcomes) {
  for (const RankOutcome& outcome : outcomes) EXPECT_TRUE(outcome.ok) << outcome.text;
}

class GpusOfTwoHosts : public ::testing::TestWithParam<Apart> {
 protected:
  void SetUp() override {
    if (const std::string why = cannot_be(GetParam()); !why.empty()) GTEST_SKIP() << why;
    stub();
  }
};
INSTANTIATE_TEST_SUITE_P(By, GpusOfTwoHosts, ::testing::Values(Apart::names, Apart::networks),
                         [](const auto& info) { return info.param == Apart::names ? "names" : "networks"; });

TEST_P(GpusOfTwoHosts, AreJoinedByNccl) {
  expect_ok(ranks_on_two_hosts(GetParam(), [](TcpPair& pair) {
    check(choice(pair) == "nccl", "NCCL goes between hosts");
    check(choice(pair, "", "GPU-0") == "nccl", "GPUs of two hosts that are called alike are not one GPU");
    check(choice(pair, "host") == "none: TANDEM_GPU_GROUP asks for the host", "through the hosts, if that is asked for");
  }));
}

TEST_P(GpusOfTwoHosts, HaveNoPeerMemoryAndSayWhereTheyAre) {
  for (const RankOutcome& outcome : ranks_on_two_hosts(GetParam(), [](TcpPair& pair) { choice(pair, "peer"); })) {
    EXPECT_EQ(outcome.code, ErrorCode::unsupported) << outcome.text;
    EXPECT_NE(outcome.text.find("collectives cannot go through peer"), std::string::npos) << outcome.text;
    EXPECT_NE(outcome.text.find("rank 0 is on the host 'host-0', rank 1 on 'host-1'"), std::string::npos) << outcome.text;
    EXPECT_LT(outcome.seconds, 5);
  }
}

// Nothing is known of the other rank but that its connection ends, or that nothing comes.
TEST_P(GpusOfTwoHosts, ARankThatIsKilledIsNamed) {
  const auto outcomes = ranks_on_two_hosts(GetParam(), [](TcpPair& pair) {
    FakeGpu device(fmt::format("GPU-{}", pair.rank()));
    const auto group = make_gpu_group(pair, device, {.deadline = Deadline::after(10s)}, nullptr);
    pair.exchange({});
    if (pair.rank() == 1) raise(SIGKILL);
    for (GpuWait wait(*group, 20s, "the work of its GPU");;) wait.look();
  });
  ASSERT_TRUE(outcomes[0].finished);
  EXPECT_EQ(outcomes[0].code, ErrorCode::rank_failed) << outcomes[0].text;
  EXPECT_EQ(outcomes[0].rank, 1) << outcomes[0].text;
  EXPECT_LT(outcomes[0].seconds, 5);
}

TEST_P(GpusOfTwoHosts, ARankThatDoesNothingEndsTheWait) {
  const auto outcomes = ranks_on_two_hosts(GetParam(), [](TcpPair& pair) {
    FakeGpu device(fmt::format("GPU-{}", pair.rank()));
    const auto group = make_gpu_group(pair, device, {.deadline = Deadline::after(10s)}, nullptr);
    pair.exchange({});
    if (pair.rank() == 1) return static_cast<void>(pair.exchange({}, Deadline::after(10s)));
    for (GpuWait wait(*group, 300ms, "the work of its GPU");;) wait.look();
  });
  EXPECT_EQ(outcomes[0].code, ErrorCode::timeout) << outcomes[0].text;
  EXPECT_NE(outcomes[0].text.find("which rank is late cannot be told"), std::string::npos) << outcomes[0].text;
  EXPECT_EQ(outcomes[1].code, ErrorCode::rank_failed) << outcomes[1].text;
  EXPECT_EQ(outcomes[1].rank, 0) << outcomes[1].text;
}

TEST(GpusOfOneHost, WithoutPeersGoByNccl) {
  stub();
  run_rank_processes(2, [](Group& control) {
    set({{"NCCL_P2P_DISABLE", "1"}});
    check(choice(control) == "nccl", "the next one");
    const std::string shared = choice(control, "", "GPU-0");
    check(shared == "none: ranks 0 and 1 share one GPU", shared);
  });
}

// What one rank says counts for all of them.
TEST(GpusOfOneHost, WithoutPeersSayWhichRankAndWhy) {
  stub();
  for (const int which : {0, 1}) {
    RankProcesses ranks(2, [which](Group& control) {
      if (control.rank() == which) set({{"NCCL_P2P_DISABLE", "1"}});
      choice(control, "peer");
    });
    for (const RankOutcome& outcome : ranks.wait(20s)) {
      EXPECT_EQ(outcome.code, ErrorCode::unsupported) << outcome.text;
      // A machine without a driver has its own reason on rank 0.
      const std::string mine = "peer on rank 0: NCCL_P2P_DISABLE is set", driver = "peer on rank 0: the NVIDIA driver has no",
                        other = "peer on rank 1: NCCL_P2P_DISABLE is set";
      const auto says = [&](const std::string& words) { return outcome.text.find(words) != std::string::npos; };
      EXPECT_TRUE(which == 0 ? says(mine) : says(other) || says(driver)) << outcome.text;
    }
  }
}

TEST(GpusOfOneHost, WhatNobodyHasIsRefused) {
  RankProcesses ranks(2, [](Group& control) { choice(control, "pigeons"); });
  for (const RankOutcome& outcome : ranks.wait(20s)) {
    EXPECT_EQ(outcome.code, ErrorCode::unsupported) << outcome.text;
    EXPECT_NE(outcome.text.find("collectives cannot go through pigeons"), std::string::npos) << outcome.text;
  }
}

TEST(DifferentHosts, NamesTheFirstTwoAndHowTheyDiffer) {
  const auto place = [](int rank, const char* name, const char* id) { return GpuPlace{rank, {name, id}, "GPU", 1}; };
  const GpuPlace one[] = {place(0, "a", "1"), place(1, "b", "1")};
  EXPECT_EQ(different_hosts(one), std::nullopt) << "containers of one host may have names of their own";
  const GpuPlace two[] = {place(4, "a", "1"), place(2, "a", "1"), place(7, "b", "2")};
  EXPECT_EQ(different_hosts(two), "rank 4 is on the host 'a', rank 7 on 'b'");
  const GpuPlace alike[] = {place(0, "a", "1"), place(1, "a", "2")};
  EXPECT_EQ(different_hosts(alike), "rank 0 is on the host 'a', rank 1 on 'a' too, under another kernel or in another network namespace");
}

}  // namespace
}  // namespace tandem::test
