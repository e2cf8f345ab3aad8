// Ranks that err, die, stop or are late: what the caller is told, how soon, and what can still be done.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <thread>

#include "team/mlp.h"

namespace tandem {
namespace {

using namespace std::chrono_literals;

// A machine may be busy: this is only to tell an end from a hang.
constexpr auto kPatience = 30s;

struct Caught {
  ErrorCode code = ErrorCode::internal;
  int rank = -1;
  std::string text, node;
  std::chrono::nanoseconds took{};
};

Caught catch_error(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  Caught caught;
  try {
    work();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    caught = {error.code(), error.rank(), error.what(), error.node()};
  }
  caught.took = std::chrono::steady_clock::now() - begin;
  return caught;
}

TeamSettings settings(bool processes) {
  TeamSettings s;
  if (processes) s.rank_command = own_ranks();
  s.step_deadline = 1s;
  return s;
}

void expect_same(const Tensor& got, const std::vector<double>& want) {
  ASSERT_EQ(got.count(), static_cast<std::int64_t>(want.size()));
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got.at(static_cast<std::int64_t>(i)), want[i], 1e-5);
}

bool contains(const std::string& text, const std::string& words) { return text.find(words) != std::string::npos; }

class Both : public ::testing::TestWithParam<bool> {};

TEST_P(Both, AnErrorOfARankLeavesTheTeamUsable) {
  for (const char* mesh : {"", "dp=2", "tp=2", "dp=2,tp=2"}) {
    const Built built = build_mlp(mesh, true);
    Team team({built.plan}, built.weights(), settings(GetParam()));
    const std::vector<std::int64_t> good = {5, 0, 3, 1}, bad = {0, 1, 2, 6};
    for (int round = 0; round < 2; ++round) {
      const Caught caught = catch_error([&] { team.run({{"ids", {ids_of(bad)}}}); });
      EXPECT_EQ(caught.code, ErrorCode::invalid_argument) << caught.text;
      EXPECT_TRUE(contains(caught.node, "Gather")) << caught.text;
      EXPECT_GE(caught.rank, 0);
      EXPECT_TRUE(contains(caught.text, "6")) << caught.text;
      expect_same(team.run({{"ids", {ids_of(good)}}}).at("y").at(0), expected(looked_up(good)));
    }
  }
}

TEST_P(Both, StopEndsTheCall) {
  const Built built = build_mlp("tp=2");
  TeamSettings s = settings(GetParam());
  const auto stop = std::make_shared<std::atomic<bool>>(false);
  s.stop = [stop] { return stop->load(); };
  Team team({built.plan}, built.weights(), s);
  const auto x = ramp(3);
  const TeamTensors inputs = {{"x", {Tensor::of(DType::f32, {3, kWidth}, x)}}};
  *stop = true;
  EXPECT_EQ(catch_error([&] { team.run(inputs); }).code, ErrorCode::interrupted);
  *stop = false;
  expect_same(team.run(inputs).at("y").at(0), expected(x));
}

INSTANTIATE_TEST_SUITE_P(Ranks, Both, ::testing::Bool(), [](const auto& info) { return info.param ? "Processes" : "Threads"; });

// A team of processes whose rank 1 gets a signal between two runs.
Caught after_signal(const char* mesh, int signal) {
  const Built built = build_mlp(mesh);
  Team team({built.plan}, built.weights(), settings(true));
  std::vector<int> processes;
  for (int rank = 0; rank < team.size(); ++rank) processes.push_back(team.process(rank));
  const TeamTensors inputs = {{"x", {Tensor(DType::f32, {4, kWidth})}}};
  team.run(inputs);
  EXPECT_EQ(::kill(processes[1], signal), 0);
  const Caught caught = catch_error([&] { team.run(inputs); });
  EXPECT_LT(caught.took, kPatience) << caught.text;
  EXPECT_EQ(caught.rank, 1) << caught.text;
  // The team is closed for good, and no process of it is left, stopped ones included.
  EXPECT_EQ(catch_error([&] { team.run(inputs); }).text, caught.text);
  for (const int process : processes) EXPECT_NE(::kill(process, 0), 0) << process;
  return caught;
}

TEST(Processes, AKilledRankIsNamed) {
  for (const char* mesh : {"tp=2", "dp=2", "dp=2,tp=2"}) {
    const Caught caught = after_signal(mesh, SIGKILL);
    EXPECT_EQ(caught.code, ErrorCode::rank_failed) << caught.text;
    EXPECT_TRUE(contains(caught.text, "rank 1: its process was killed by signal 9")) << caught.text;
  }
}

TEST(Processes, ACrashedRankIsNamed) {
  const Caught caught = after_signal("tp=2", SIGSEGV);
  EXPECT_EQ(caught.code, ErrorCode::rank_failed) << caught.text;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which make a status of it
  EXPECT_TRUE(contains(caught.text, "signal 11")) << caught.text;
#endif
}

TEST(Processes, AStoppedRankIsNamedWithWhereTheOthersWait) {
  const Caught caught = after_signal("tp=2", SIGSTOP);
  EXPECT_EQ(caught.code, ErrorCode::timeout) << caught.text;
  for (const char* words : {"rank 1: no progress for 1.0 s", "completed 0 of 4 steps", "rank 0 waited in [AllReduce"})
    EXPECT_TRUE(contains(caught.text, words)) << caught.text;
}

TEST(Processes, AStoppedRankWithoutCollectivesIsNamed) {
  const Caught caught = after_signal("dp=2", SIGSTOP);
  EXPECT_EQ(caught.code, ErrorCode::timeout) << caught.text;
  EXPECT_TRUE(contains(caught.text, "rank 1: no progress for 1.0 s")) << caught.text;
}

TEST(Processes, SignalsOfTheTerminalAreLeftToTheLeader) {
  const Built built = build_mlp("tp=2");
  Team team({built.plan}, built.weights(), settings(true));
  const auto x = ramp(2);
  for (const int signal : {SIGINT, SIGTERM})
    for (int rank = 0; rank < 2; ++rank) EXPECT_EQ(::kill(team.process(rank), signal), 0);
  expect_same(team.run({{"x", {Tensor::of(DType::f32, {2, kWidth}, x)}}}).at("y").at(0), expected(x));
}

TEST(Processes, OutliveTheThreadThatStartedThem) {
  const Built built = build_mlp("tp=2");
  std::unique_ptr<Team> team;
  std::thread([&] { team = std::make_unique<Team>(std::vector{built.plan}, built.weights(), settings(true)); }).join();
  std::this_thread::sleep_for(50ms);
  const auto x = ramp(2);
  expect_same(team->run({{"x", {Tensor::of(DType::f32, {2, kWidth}, x)}}}).at("y").at(0), expected(x));
}

TEST(Processes, AProgramThatCannotBeARank) {
  const Built built = build_mlp("tp=2");
  TeamSettings s = settings(true);
  s.rank_command = {"/nowhere/tandem", "rank"};
  const Caught none = catch_error([&] { Team({built.plan}, built.weights(), s); });
  EXPECT_EQ(none.code, ErrorCode::io);
  EXPECT_TRUE(contains(none.text, "/nowhere/tandem")) << none.text;
  s.rank_command = {"/bin/false"};
  const Caught wrong = catch_error([&] { Team({built.plan}, built.weights(), s); });
  EXPECT_EQ(wrong.code, ErrorCode::rank_failed);
  EXPECT_TRUE(contains(wrong.text, "ended with status 1")) << wrong.text;
}

// Rank 1 does not finish loading in time. Its thread is let go, and may take as long as it likes.
TEST(Threads, ARankThatLoadsTooLongIsNamedAndLetGo) {
  const Built built = build_mlp("tp=2");
  TeamSettings s = settings(false);
  s.load_deadline = 300ms;
  s.drain_deadline = 100ms;
  const auto go_on = std::make_shared<std::atomic<bool>>(false), done = std::make_shared<std::atomic<bool>>(false);
  const WeightSource slow = [weights = built.weights(), go_on, done](const PlanWeight& weight, int rank) {
    while (rank == 1 && !*go_on) std::this_thread::sleep_for(5ms);
    Tensor tensor = weights(weight, rank);
    if (rank == 1) *done = true;
    return tensor;
  };
  const Caught caught = catch_error([&] { Team({built.plan}, slow, s); });
  EXPECT_EQ(caught.code, ErrorCode::timeout);
  EXPECT_EQ(caught.rank, 1) << caught.text;
  EXPECT_TRUE(contains(caught.text, "had not joined")) << caught.text;
  EXPECT_LT(caught.took, kPatience);
  *go_on = true;
  for (int i = 0; i < 3000 && !*done; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_TRUE(*done);
}

TEST(Threads, AnErrorWhileLoadingNamesTheRank) {
  const Built built = build_mlp("tp=2");
  const WeightSource broken = [weights = built.weights()](const PlanWeight& weight, int rank) {
    if (rank == 1) throw Error(ErrorCode::io, "the disk is gone");
    return weights(weight, rank);
  };
  const Caught caught = catch_error([&] { Team({built.plan}, broken, settings(false)); });
  EXPECT_EQ(caught.code, ErrorCode::io);
  EXPECT_EQ(caught.text, "rank 1: the disk is gone");
}

}  // namespace
}  // namespace tandem
