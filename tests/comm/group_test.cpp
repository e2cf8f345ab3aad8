// Ranks that nobody started for each other: how they meet, and who is named when they do not.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "comm/oracle.h"
#include "comm/rank_processes.h"
#include "comm/shm/meeting_socket.h"
#include "core/check.h"
#include "tandem/group.h"

namespace tandem {
namespace {

using namespace std::chrono_literals;

constexpr const char* kPlace = "127.0.0.1:29500";

// Options of a run that no other test of this or another process is in.
GroupOptions new_run(double rendezvous_s = 20) {
  static std::atomic<int> number{0};
  return {.run_id = fmt::format("group_test/{}/{}", ::getpid(), number++), .rendezvous_deadline_s = rendezvous_s};
}

// The socket's name where run_id is empty, by the offset basis of FNV-1a.
std::string name_of(int port) { return fmt::format("tandem/{}/{}/cbf29ce484222325", ::getuid(), port); }

float sum_of_ranks(Group& group) {
  const std::int64_t dims[] = {1};
  float value = static_cast<float>(group.rank());
  group.run({.kind = Collective::all_reduce, .reduction = Reduction::sum, .dims = dims, .in = &value, .out = &value});
  return value;
}

void join_and_sum(int rank, int size, const GroupOptions& options, const std::string& place = kPlace) {
  const auto group = Group::join(rank, size, place, options);
  check(group->rank() == rank && group->size() == size, "the group is as asked for");
  check(sum_of_ranks(*group) == static_cast<float>(size * (size - 1)) / 2, "the sum of ranks");
}

void expect_all_ok(const std::vector<RankOutcome>& outcomes) {
  for (std::size_t i = 0; i < outcomes.size(); ++i) EXPECT_TRUE(outcomes[i].ok) << "process " << i << ": " << outcomes[i].text;
}

void expect_error(const RankOutcome& outcome, ErrorCode code, int rank, const std::string& text) {
  ASSERT_TRUE(outcome.finished);
  EXPECT_FALSE(outcome.ok);
  EXPECT_EQ(outcome.code, code) << outcome.text;
  EXPECT_EQ(outcome.rank, rank) << outcome.text;
  EXPECT_NE(outcome.text.find(text), std::string::npos) << outcome.text;
}

TEST(Join, ProcessesMeetAndCommunicate) {
  const GroupOptions run = new_run();
  RankProcesses ranks(4, [&](int rank) {
    const auto group = Group::join(rank, 4, kPlace, run);
    run_and_check(*group, {.kind = Collective::all_gather}, {3, 5}, 7);
    run_and_check(*group, {.kind = Collective::reduce_scatter, .reduction = Reduction::max, .dtype = DType::i32}, {8, 2}, 8);
    const auto half = group->split({{0, 2}, {3, 1}});
    run_and_check(*half, {.kind = Collective::all_to_all, .dtype = DType::f16}, {4, 3}, 9);
    check(group->exchange(std::as_bytes(std::span(&rank, 1))).size() == 4, "a blob of each");
  });
  expect_all_ok(ranks.wait());
}

TEST(Join, ThreadsMeetToo) {
  const GroupOptions run = new_run();
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < 3; ++rank) threads.emplace_back([&, rank] { EXPECT_NO_THROW(join_and_sum(rank, 3, run)); });
}

TEST(Join, OneRankNeedsNobody) { EXPECT_NO_THROW(join_and_sum(0, 1, new_run())); }

TEST(Join, RankZeroMayComeLast) {
  const GroupOptions run = new_run();
  RankProcesses ranks(3, [&](int rank) {
    if (rank == 0) std::this_thread::sleep_for(300ms);
    join_and_sum(rank, 3, run);
  });
  expect_all_ok(ranks.wait());
}

TEST(Join, AgainAndAgainAtOneAddress) {
  const GroupOptions run = new_run();
  RankProcesses ranks(3, [&](int rank) {
    std::vector<std::unique_ptr<Group>> kept;
    for (int i = 0; i < 30; ++i) {
      kept.push_back(Group::join(rank, 3, kPlace, run));
      check(sum_of_ranks(*kept.back()) == 3, "the sum of ranks");
    }
    check(sum_of_ranks(*kept.front()) == 3, "the first group still works");
  });
  expect_all_ok(ranks.wait());
}

TEST(Join, TwoRunsAtOnce) {
  const GroupOptions first = new_run(), second = new_run();
  RankProcesses ranks(8, [&](int number) {
    const bool other_port = number % 4 >= 2;
    join_and_sum(number % 2, 2, number < 4 ? first : second, other_port ? "localhost:29501" : kPlace);
  });
  expect_all_ok(ranks.wait());
}

TEST(Join, LeavesNothingBehind) {
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  const auto meet_often = [](int times) {
    for (int i = 0; i < times; ++i) {
      const GroupOptions run = new_run();
      std::jthread other([&] { join_and_sum(1, 2, run); });
      join_and_sum(0, 2, run);
    }
  };
  meet_often(2);
  const auto before = descriptors();
  meet_often(50);
  EXPECT_EQ(descriptors(), before);
  EXPECT_THROW(Group::join(1, 2, kPlace, new_run(0.1)), Error);
  EXPECT_THROW(Group::join(0, 2, kPlace, new_run(0.1)), Error);
  EXPECT_EQ(descriptors(), before);
}

TEST(Join, RanksThatDoNotComeAreNamedToAll) {
  const GroupOptions run = new_run(0.7);
  RankProcesses ranks(2, [&](int rank) { Group::join(rank, 4, kPlace, run); });
  for (const RankOutcome& outcome : ranks.wait())
    expect_error(outcome, ErrorCode::timeout, 2, "ranks 2, 3 of 4 did not come to 127.0.0.1:29500 in 0.7 s");
}

TEST(Join, ShorterPatienceKnowsWhoIsMissing) {
  GroupOptions run = new_run(5);
  RankProcesses ranks(2, [&](int rank) {
    if (rank == 1) run.rendezvous_deadline_s = 0.6;
    Group::join(rank, 3, kPlace, run);
  });
  const std::vector<RankOutcome> outcomes = ranks.wait();
  expect_error(outcomes[1], ErrorCode::timeout, 2, "rank 2 of 3 did not come to 127.0.0.1:29500 in 0.6 s");
  expect_error(outcomes[0], ErrorCode::timeout, 2, "rank 2 of 3 did not come to 127.0.0.1:29500 in 0.6 s");
  EXPECT_LT(outcomes[0].seconds, 4);
}

TEST(Join, RankZeroThatDoesNotComeIsNamed) {
  const GroupOptions run = new_run(0.3);
  RankProcesses ranks(1, [&](int) { Group::join(1, 2, kPlace, run); });
  expect_error(ranks.wait()[0], ErrorCode::timeout, 0, "rank 0 of 2 did not come to 127.0.0.1:29500 in 0.3 s");
}

TEST(Join, OtherWorldSizes) {
  const GroupOptions run = new_run();
  RankProcesses ranks(2, [&](int rank) { Group::join(rank, rank == 0 ? 2 : 3, kPlace, run); });
  for (const RankOutcome& outcome : ranks.wait()) expect_error(outcome, ErrorCode::mismatch, 1, "says that there are 3 ranks, rank 0");
}

TEST(Join, OneRankTwice) {
  const GroupOptions run = new_run();
  RankProcesses ranks(3, [&](int number) { Group::join(number == 0 ? 0 : 1, 3, kPlace, run); });
  for (const RankOutcome& outcome : ranks.wait()) expect_error(outcome, ErrorCode::mismatch, 1, "two processes say that they are rank 1: ");
}

TEST(Join, AnotherVersion) {
  const GroupOptions run = {.rendezvous_deadline_s = 20};
  RankProcesses ranks(2, [&](int rank) {
    if (rank == 0) Group::join(0, 2, "127.0.0.1:29517", run);
    shm::MeetingSocket socket;
    while (!(socket = shm::MeetingSocket::connect(name_of(29517)))) std::this_thread::sleep_for(1ms);
    check(socket.send(shm::Hello{0x6f6c6c6568646e74, 999, 1, 2}), "sent");
    while (!socket.ended()) socket.receive<shm::Answer>();
  });
  expect_error(ranks.wait()[0], ErrorCode::mismatch, 1, "another version of Tandem: it says 999, rank 0 says ");
}

TEST(Join, TcpPortOfALauncherIsNotInTheWay) {
  const int taken = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof address;
  ASSERT_EQ(::bind(taken, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(taken, 8), 0);
  ASSERT_EQ(::getsockname(taken, reinterpret_cast<sockaddr*>(&address), &length), 0);
  const GroupOptions run = new_run();
  RankProcesses ranks(2, [&](int rank) { join_and_sum(rank, 2, run, fmt::format("127.0.0.1:{}", ntohs(address.sin_port))); });
  expect_all_ok(ranks.wait());
  ::close(taken);
}

TEST(Join, PlaceTakenBySomebodyElse) {
  const auto stranger = shm::MeetingSocket::listen(name_of(29518));
  ASSERT_TRUE(stranger);
  RankProcesses ranks(2, [&](int rank) { Group::join(rank, 2, "127.0.0.1:29518", {.rendezvous_deadline_s = 0.4}); });
  const std::vector<RankOutcome> outcomes = ranks.wait();
  expect_error(outcomes[0], ErrorCode::timeout, -1,
               fmt::format("rank 0 cannot wait for the others at 127.0.0.1:29518: process {} has waited there", ::getpid()));
  expect_error(outcomes[1], ErrorCode::timeout, 0, fmt::format("process {} is there and does not answer", ::getpid()));
}

TEST(Join, StrangersAreIgnored) {
  const GroupOptions run = {.rendezvous_deadline_s = 20};
  RankProcesses ranks(3, [&](int rank) {
    if (rank < 2) {
      if (rank == 1) std::this_thread::sleep_for(300ms);
      return join_and_sum(rank, 2, run, "127.0.0.1:29519");
    }
    shm::MeetingSocket socket;
    while (!(socket = shm::MeetingSocket::connect(name_of(29519)))) std::this_thread::sleep_for(1ms);
    check(socket.send(shm::Hello{1, 2, 3, 4}), "sent");
    while (!socket.ended()) socket.receive<shm::Answer>();
  });
  expect_all_ok(ranks.wait());
}

TEST(Join, RankThatDiedBeforeAllCameIsReplaced) {
  const GroupOptions run = new_run();
  RankProcesses ranks(4, [&](int number) {
    if (number == 3) std::this_thread::sleep_for(400ms);  // the replacement
    if (number == 2) std::this_thread::sleep_for(600ms);
    join_and_sum(number == 3 ? 1 : number, 3, run);
  });
  std::this_thread::sleep_for(200ms);
  ranks.signal(1, SIGKILL);
  const std::vector<RankOutcome> outcomes = ranks.wait();
  EXPECT_FALSE(outcomes[1].finished);
  for (const int survivor : {0, 2, 3})
    EXPECT_TRUE(outcomes[static_cast<std::size_t>(survivor)].ok) << outcomes[static_cast<std::size_t>(survivor)].text;
}

TEST(Join, RankOfAnotherRunIsNotSeen) {
  const GroupOptions run = new_run(), old_run = new_run(1.5);
  RankProcesses ranks(3, [&](int number) {
    if (number == 2) Group::join(1, 2, kPlace, old_run);
    std::this_thread::sleep_for(200ms);
    join_and_sum(number, 2, run);
  });
  const std::vector<RankOutcome> outcomes = ranks.wait();
  EXPECT_TRUE(outcomes[0].ok && outcomes[1].ok) << outcomes[0].text << outcomes[1].text;
  expect_error(outcomes[2], ErrorCode::timeout, 0, "rank 0 of 2 did not come");
}

TEST(Join, RankZeroKilledWhileOthersWait) {
  const GroupOptions run = new_run(10);
  RankProcesses ranks(2, [&](int rank) { Group::join(rank, 3, kPlace, run); });
  std::this_thread::sleep_for(300ms);
  ranks.signal(0, SIGKILL);
  const RankOutcome outcome = ranks.wait()[1];
  expect_error(outcome, ErrorCode::rank_failed, 0, "ended while the ranks met");
  EXPECT_LT(outcome.seconds, 5);
}

// Says hello like a rank, takes the memory, and ends.
TEST(Join, RankKilledInTheLastMoment) {
  RankProcesses ranks(2, [&](int rank) {
    if (rank == 0) Group::join(0, 2, "127.0.0.1:29520", {.rendezvous_deadline_s = 10});
    shm::MeetingSocket socket;
    while (!(socket = shm::MeetingSocket::connect(name_of(29520)))) std::this_thread::sleep_for(1ms);
    check(socket.send(shm::Hello{0x6f6c6c6568646e74, 1, 1, 2}), "sent");
    while (!socket.receive<shm::Answer>()) std::this_thread::sleep_for(1ms);
  });
  const RankOutcome outcome = ranks.wait()[0];
  expect_error(outcome, ErrorCode::rank_failed, 1, "ended while the ranks met");
  EXPECT_LT(outcome.seconds, 5);
}

TEST(Join, KilledRankIsNamed) {
  const GroupOptions run = new_run();
  RankProcesses ranks(3, [&](int rank) {
    const auto group = Group::join(rank, 3, kPlace, run);
    sum_of_ranks(*group);
    if (rank == 1) ::raise(SIGKILL);
    sum_of_ranks(*group);
  });
  const std::vector<RankOutcome> outcomes = ranks.wait();
  EXPECT_FALSE(outcomes[1].finished);
  for (const std::size_t survivor : {0u, 2u}) {
    expect_error(outcomes[survivor], ErrorCode::rank_failed, 1, "has ended");
    EXPECT_LT(outcomes[survivor].seconds, 10);
  }
}

TEST(Join, RankThatLeavesIsNamed) {
  const GroupOptions run = new_run();
  RankProcesses ranks(2, [&](int rank) {
    const auto group = Group::join(rank, 2, kPlace, run);
    if (rank == 1) return;
    sum_of_ranks(*group);
  });
  expect_error(ranks.wait()[0], ErrorCode::rank_failed, 1, "");
}

TEST(Join, StepDeadlineOfTheGroup) {
  GroupOptions run = new_run();
  run.step_deadline_s = 0.3;
  RankProcesses ranks(2, [&](int rank) {
    const auto group = Group::join(rank, 2, kPlace, run);
    if (rank == 1) std::this_thread::sleep_for(2s);
    sum_of_ranks(*group);
  });
  const RankOutcome outcome = ranks.wait()[0];
  expect_error(outcome, ErrorCode::timeout, 1, "nothing came from it for 0.3 s");
  EXPECT_LT(outcome.seconds, 4);
}

TEST(Join, InterruptedWhileMeeting) {
  GroupOptions run = new_run();
  RankProcesses ranks(2, [&](int rank) {
    const std::int64_t end = monotonic_ns() + 300'000'000;
    if (rank == 0) run.stop = [=] { return monotonic_ns() > end; };
    Group::join(rank, 3, kPlace, run);
  });
  const std::vector<RankOutcome> outcomes = ranks.wait();
  expect_error(outcomes[0], ErrorCode::interrupted, 0, "interrupted");
  expect_error(outcomes[1], ErrorCode::aborted, 0, "interrupted");
}

TEST(Join, InterruptedRankThatWaitsForOthers) {
  GroupOptions run = new_run();
  RankProcesses ranks(2, [&](int rank) {
    const std::int64_t end = monotonic_ns() + 300'000'000;
    if (rank == 1) run.stop = [=] { return monotonic_ns() > end; };
    Group::join(rank, 3, kPlace, run);
  });
  const std::vector<RankOutcome> outcomes = ranks.wait();
  expect_error(outcomes[1], ErrorCode::interrupted, 1, "interrupted");
  expect_error(outcomes[0], ErrorCode::aborted, 1, "its caller interrupted it");
}

TEST(Join, InterruptedInACollectiveOfASplit) {
  GroupOptions run = new_run();
  RankProcesses ranks(3, [&](int rank) {
    std::int64_t end = INT64_MAX;
    if (rank == 0) run.stop = [&] { return monotonic_ns() > end; };
    const auto group = Group::join(rank, 3, kPlace, run);
    const auto pair = group->split({{0, 1}, {2}});
    end = monotonic_ns() + 200'000'000;
    if (rank == 0) sum_of_ranks(*pair);
    sum_of_ranks(*group);
  });
  const std::vector<RankOutcome> outcomes = ranks.wait();
  expect_error(outcomes[0], ErrorCode::interrupted, 0, "interrupted in all_reduce");
  for (const std::size_t other : {1u, 2u}) expect_error(outcomes[other], ErrorCode::aborted, 0, "its caller interrupted it");
}

TEST(Join, WrongArguments) {
  const auto refused = [](int rank, int size, const std::string& place, ErrorCode code, const std::string& text) {
    try {
      Group::join(rank, size, place, new_run(0.2));
      ADD_FAILURE() << place << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(error.message().find(text), std::string::npos) << error.what();
    }
  };
  refused(2, 2, kPlace, ErrorCode::invalid_argument, "rank 2 is outside a group of 2 ranks");
  refused(-1, 2, kPlace, ErrorCode::invalid_argument, "rank -1");
  refused(0, 0, kPlace, ErrorCode::invalid_argument, "a group of 0 ranks");
  refused(0, 257, kPlace, ErrorCode::invalid_argument, "1 to 256");
  for (const char* place : {"localhost", ":29500", "localhost:", "localhost:x", "localhost:70000", "localhost:-1", "::1:29500", ""})
    refused(0, 2, place, ErrorCode::invalid_argument, "expected HOST:PORT");
  refused(1, 2, "192.0.2.1:29500", ErrorCode::unsupported, "ranks on more than one host are not supported yet");
  refused(1, 2, "[2001:db8::1]:29500", ErrorCode::unsupported, "more than one host");
  EXPECT_THROW(Group::join(0, 2, kPlace, {.rendezvous_deadline_s = -1}), Error);
}

TEST(InProcess, GroupsByRank) {
  auto groups = Group::in_process(3);
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < 3; ++rank)
    threads.emplace_back([group = std::move(groups[static_cast<std::size_t>(rank)]), rank] {
      EXPECT_EQ(group->rank(), rank);
      EXPECT_EQ(sum_of_ranks(*group), 3);
    });
}

}  // namespace
}  // namespace tandem
