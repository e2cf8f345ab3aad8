// Ranks that are not on one host, tried on one machine: what they are told, and how soon.
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>

#include "comm/two_hosts.h"
#include "core/check.h"
#include "tandem/group.h"
#include "tandem/host.h"

namespace tandem::test {
namespace {

using namespace std::chrono_literals;

void expect_ok(const std::vector<RankOutcome>& outcomes) {
  for (const RankOutcome& outcome : outcomes) EXPECT_TRUE(outcome.ok) << outcome.text;
}

TEST(Hosts, AreTheSameWhereDescriptorsCanBeHandedOver) {
  if (const std::string why = cannot_be(Apart::networks); !why.empty()) GTEST_SKIP() << why;
  const Host mine = this_host();
  EXPECT_FALSE(mine.name.empty());
  RankProcesses processes(1, [&](int) {
    check(this_host().id == mine.id && this_host().name == mine.name, "a child is on the same host");
    check(unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS) == 0 && sethostname("other", 5) == 0, "a container's name");
    check(this_host().id == mine.id && this_host().name == "other", "a container in the same network is on the same host");
    check(unshare(CLONE_NEWNET) == 0, "a network");
    check(this_host().id != mine.id, "one in another network is not");
    setenv("TANDEM_TEST_HOST", "far away", 1);
    check(this_host().id == "far away" && this_host().name == "far away", "tests say what they like");
  });
  expect_ok(processes.wait(20s));
}

// Rank 0 is where it should be and waits; rank 1 sees from the address that it is elsewhere.
TEST(Hosts, ARankOfAnotherHostIsRefusedBeforeItWaits) {
  if (const std::string why = cannot_be(Apart::networks); !why.empty()) GTEST_SKIP() << why;
  const auto outcomes = on_two_hosts(
      Apart::networks, [](int rank) { Group::join(rank, 2, "10.77.0.1:29500", {.rendezvous_deadline_s = 2}); }, 20s);
  EXPECT_EQ(outcomes[0].code, ErrorCode::timeout) << outcomes[0].text;
  EXPECT_NE(outcomes[0].text.find("rank 1 of 2 did not come"), std::string::npos) << outcomes[0].text;
  EXPECT_EQ(outcomes[1].code, ErrorCode::unsupported) << outcomes[1].text;
  EXPECT_NE(outcomes[1].text.find("rank 0 should be on the host '10.77.0.1', this is 'host-1'"), std::string::npos) << outcomes[1].text;
  EXPECT_LT(outcomes[1].seconds, 2);
}

// An address that every host takes for itself does not tell, so they wait for each other, and no longer than they were told to.
TEST(Hosts, RanksThatEachWaitAtHomeAreTold) {
  if (const std::string why = cannot_be(Apart::networks); !why.empty()) GTEST_SKIP() << why;
  const auto outcomes = on_two_hosts(
      Apart::networks, [](int rank) { Group::join(rank, 2, "127.0.0.1:29500", {.rendezvous_deadline_s = 1}); }, 20s);
  for (int rank = 0; rank < 2; ++rank) {
    const RankOutcome& outcome = outcomes[static_cast<std::size_t>(rank)];
    EXPECT_EQ(outcome.code, ErrorCode::timeout) << outcome.text;
    EXPECT_NE(outcome.text.find(fmt::format("rank {} of 2 did not come", 1 - rank)), std::string::npos) << outcome.text;
    EXPECT_LT(outcome.seconds, 5);
  }
}

// Two containers with names, mounts and shared memory of their own in one network, as a pod has them.
TEST(Hosts, ContainersInOneNetworkMeet) {
  if (const std::string why = cannot_be(Apart::networks); !why.empty()) GTEST_SKIP() << why;
  const std::string run = fmt::format("hosts_test/{}", getpid());
  RankProcesses processes(2, [&](int rank) {
    check(unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS) == 0 && sethostname(host_name(rank).data(), 6) == 0, "a container");
    const auto group = Group::join(rank, 2, "127.0.0.1:29500", {.run_id = run, .rendezvous_deadline_s = 10});
    const std::int64_t dims[] = {1};
    float value = 1;
    group->run({.kind = Collective::all_reduce, .reduction = Reduction::sum, .dims = dims, .in = &value, .out = &value});
    check(value == 2, "the sum");
  });
  expect_ok(processes.wait(30s));
}

}  // namespace
}  // namespace tandem::test
