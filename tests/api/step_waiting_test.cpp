#include "api/run/step_waiting.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

using Trace = std::vector<std::vector<TraceEvent>>;

CollectiveUse use(int step, const std::string& operation, const std::string& axis = "", RankLists groups = {}) {
  return {.program = 0, .step = step, .operation = operation, .count = 8, .axis = axis, .groups = std::move(groups), .bytes = 8};
}

Plan on(const std::string& mesh, std::vector<CollectiveUse> uses) {
  Plan plan;
  plan.device = "cuda";
  plan.mesh = Mesh::parse(mesh);
  plan.collectives = std::move(uses);
  return plan;
}

// Per rank and step the nanoseconds that it took, on clocks that have nothing in common.
Trace took(const std::vector<std::vector<std::int64_t>>& ranks) {
  Trace trace;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    std::int64_t now = 1'000'000 * static_cast<std::int64_t>(r * r);
    trace.emplace_back();
    for (std::size_t s = 0; s < ranks[r].size(); ++s) {
      trace.back().push_back({static_cast<int>(s), now, now + ranks[r][s], 0});
      now += ranks[r][s] + 10;
    }
  }
  return trace;
}

std::vector<std::int64_t> waited(const Trace& trace, std::size_t step) {
  std::vector<std::int64_t> times;
  for (const auto& rank : trace) times.push_back(rank.at(step).waited_ns);
  return times;
}

using Times = std::vector<std::int64_t>;

TEST(StepWaiting, WhoComesLastWaitsForNobody) {
  Trace trace = took({{100, 900}, {500, 500}, {970, 30}});
  tell_waiting(on("tp=3", {use(1, "all_reduce", "tp")}), 0, trace);
  EXPECT_EQ(waited(trace, 1), (Times{870, 470, 0}));
  EXPECT_EQ(waited(trace, 0), (Times{0, 0, 0}));  // it computes
}

TEST(StepWaiting, EachGroupHasItsOwnLast) {
  const std::vector<std::vector<std::int64_t>> times = {{50}, {40}, {30}, {20}};  // ranks (cp, tp) = (0,0), (0,1), (1,0), (1,1)
  Trace by_tp = took(times), by_cp = took(times), by_lists = took(times), world = took(times);
  tell_waiting(on("cp=2,tp=2", {use(0, "all_gather", "tp")}), 0, by_tp);
  tell_waiting(on("cp=2,tp=2", {use(0, "reduce_scatter", "cp")}), 0, by_cp);
  tell_waiting(on("cp=2,tp=2", {use(0, "all_to_all", "", {{0, 3}})}), 0, by_lists);
  tell_waiting(on("cp=2,tp=2", {use(0, "all_reduce")}), 0, world);
  EXPECT_EQ(waited(by_tp, 0), (Times{10, 0, 10, 0}));
  EXPECT_EQ(waited(by_cp, 0), (Times{20, 20, 0, 0}));
  EXPECT_EQ(waited(by_lists, 0), (Times{30, 0, 0, 0}));
  EXPECT_EQ(waited(world, 0), (Times{30, 20, 10, 0}));
}

TEST(StepWaiting, NothingIsSaidWhereRanksLeaveApartOrNothingRan) {
  for (const char* operation : {"broadcast", "reduce", "gather", "scatter", "shift", "append", "attention"}) {
    Trace trace = took({{50}, {40}});
    tell_waiting(on("tp=2", {use(0, operation, "tp")}), 0, trace);
    EXPECT_EQ(waited(trace, 0), (Times{0, 0})) << operation;
  }
  Trace other = took({{50}, {40}});
  tell_waiting(on("tp=2", {use(0, "all_reduce", "tp")}), 1, other);  // of the program of another profile
  EXPECT_EQ(waited(other, 0), (Times{0, 0}));
  Trace cut = took({{50}, {40, 40}});
  tell_waiting(on("tp=2", {use(1, "all_reduce", "tp")}), 0, cut);
  EXPECT_EQ(waited(cut, 0), (Times{0, 0}));
}

}  // namespace
}  // namespace tandem
