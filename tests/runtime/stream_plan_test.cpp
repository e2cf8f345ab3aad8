// Which weights are resident and when the others are copied, by running plans in random interleavings of both streams.
#include "runtime/stream_plan.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <set>

#include "support/thrown.h"
#include "tandem/error.h"

namespace tandem {
namespace {

constexpr std::size_t kUnit = 256;

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : engine_(seed) {}
  std::size_t below(std::size_t limit) { return engine_() % limit; }
  bool chance(std::size_t percent) { return below(100) < percent; }

 private:
  std::mt19937_64 engine_;
};

// Blocks of all sizes; programs whose steps read none, one or several, some of them more than once.
WeightUses random_uses(Dice& dice) {
  WeightUses uses;
  const std::size_t blocks = 1 + dice.below(40), programs = 1 + dice.below(2);
  for (std::size_t b = 0; b < blocks; ++b) {
    uses.bytes.push_back(kUnit * (1 + dice.below(dice.chance(30) ? 6000 : 8)));
    uses.stays.push_back(dice.chance(5));
  }
  for (std::size_t p = 0; p < programs; ++p) {
    auto& steps = uses.reads.emplace_back(1 + dice.below(60));
    for (std::vector<int>& step : steps) {
      std::set<int> some;
      for (std::size_t i = 0, count = dice.below(4); i < count; ++i) some.insert(static_cast<int>(dice.below(blocks)));
      step.assign(some.begin(), some.end());
    }
  }
  return uses;
}

// The ring and both streams of a device: whichever may go on does, by chance. What a step reads is looked at when it starts and when it
// ends; a copy spoils its room from its start to its end.
class Simulation {
 public:
  Simulation(const std::vector<std::vector<int>>& reads, const std::vector<std::size_t>& bytes, const Residency& residency,
             const std::vector<Fetch>& fetches)
      : reads_(reads), bytes_(bytes), residency_(residency), fetches_(fetches), ring_(residency.ring_bytes / kUnit, kNothing) {}

  void run(Dice& dice) {
    while (steps_over_ < reads_.size() || copies_over_ < fetches_.size()) {
      const bool copy_can = can_copy(), step_can = can_compute();
      ASSERT_TRUE(copy_can || step_can) << "step " << steps_over_ << " and copy " << copies_over_ << " wait for one another";
      if (copy_can && (!step_can || dice.chance(50))) advance_copy();
      else advance_step();
      if (::testing::Test::HasFailure()) return;
    }
  }

 private:
  static constexpr int kNothing = -1;

  bool can_copy() const { return copies_over_ < fetches_.size() && fetches_[copies_over_].after < static_cast<int>(steps_over_); }
  bool can_compute() const {
    if (steps_over_ == reads_.size()) return false;
    for (std::size_t f = copies_over_; f < fetches_.size(); ++f)
      if (fetches_[f].step == static_cast<int>(steps_over_)) return false;
    return true;
  }
  void fill(bool with_block) {
    for (const Fetch::Piece& piece : fetches_[copies_over_].pieces) {
      const std::size_t first = piece.offset / kUnit, count = bytes_[static_cast<std::size_t>(piece.block)] / kUnit;
      ASSERT_EQ(piece.offset % kUnit, 0u);
      ASSERT_LE(first + count, ring_.size());
      std::fill_n(ring_.begin() + static_cast<std::ptrdiff_t>(first), count, with_block ? piece.block : kNothing);
    }
  }
  void advance_copy() {
    fill(copying_);
    if (copying_) ++copies_over_;
    copying_ = !copying_;
  }
  void advance_step() {
    look();
    if (computing_) ++steps_over_;
    computing_ = !computing_;
  }
  void look() {
    for (const int block : reads_[steps_over_]) {
      if (residency_.resident[static_cast<std::size_t>(block)]) continue;
      bool found = false;
      for (const Fetch& fetch : fetches_) {
        if (fetch.step != static_cast<int>(steps_over_)) continue;
        for (const Fetch::Piece& piece : fetch.pieces) {
          if (piece.block != block) continue;
          found = true;
          for (std::size_t i = 0; i < bytes_[static_cast<std::size_t>(block)] / kUnit; ++i)
            ASSERT_EQ(ring_[piece.offset / kUnit + i], block) << "of step " << steps_over_;
        }
      }
      ASSERT_TRUE(found) << "block " << block << " of step " << steps_over_;
    }
  }

  const std::vector<std::vector<int>>& reads_;
  const std::vector<std::size_t>& bytes_;
  const Residency& residency_;
  const std::vector<Fetch>& fetches_;
  std::vector<int> ring_;
  std::size_t steps_over_ = 0, copies_over_ = 0;
  bool copying_ = false, computing_ = false;
};

std::size_t largest_need(const WeightUses& uses, const std::vector<std::vector<int>>& reads, const Residency& residency) {
  std::size_t most = 0;
  for (const std::vector<int>& step : reads) {
    std::size_t need = 0;
    for (const int b : step) need += residency.resident[static_cast<std::size_t>(b)] ? 0 : uses.bytes[static_cast<std::size_t>(b)];
    most = std::max(most, need);
  }
  return most;
}

void check_budget(const WeightUses& uses, std::size_t budget, Dice& dice) {
  const Residency residency = choose_residents(uses, budget);
  std::size_t resident = 0;
  for (std::size_t b = 0; b < uses.bytes.size(); ++b) {
    resident += residency.resident[b] ? uses.bytes[b] : 0;
    ASSERT_TRUE(residency.resident[b] || !uses.stays[b]);
  }
  ASSERT_EQ(resident, residency.resident_bytes);
  ASSERT_LE(resident + residency.ring_bytes, budget);
  for (const auto& reads : uses.reads) {
    const std::size_t need = largest_need(uses, reads, residency);
    ASSERT_LE(need, residency.ring_bytes);
    const std::vector<Fetch> fetches = plan_fetches(reads, uses.bytes, residency);
    for (std::size_t f = 0; f < fetches.size(); ++f) {
      ASSERT_LT(fetches[f].after, fetches[f].step);
      if (f == 0) continue;
      ASSERT_GT(fetches[f].step, fetches[f - 1].step);
      ASSERT_GE(fetches[f].after, fetches[f - 1].after);
      // Double buffering: what the next step needs comes while this one computes.
      if (2 * need <= residency.ring_bytes) {
        ASSERT_LT(fetches[f].after, fetches[f - 1].step);
      }
    }
    for (int i = 0; i < 4 && !::testing::Test::HasFailure(); ++i) Simulation(reads, uses.bytes, residency, fetches).run(dice);
  }
}

TEST(StreamPlan, RandomProgramsInRandomOrder) {
  std::size_t streamed = 0;
  for (std::uint64_t seed = 1; seed <= 100 && !HasFailure(); ++seed) {
    Dice dice(seed);
    const WeightUses uses = random_uses(dice);
    const std::size_t least = least_budget(uses), total = total_bytes(uses);
    for (const std::size_t part : {0, 1, 5, 25, 50, 75, 99, 100}) {
      const std::size_t budget = std::max(least, least + (total - std::min(least, total)) * part / 100);
      SCOPED_TRACE(fmt::format("seed {} budget {} of {}, least {}", seed, budget, total, least));
      check_budget(uses, budget, dice);
      streamed += budget < total;
    }
  }
  EXPECT_GT(streamed, 500u);
  std::printf("%zu budgets below all weights, seeds 1 to 100\n", streamed);
}

// `count` steps that read a block of `bytes` each.
WeightUses layers(std::size_t count, std::size_t bytes) {
  WeightUses uses;
  uses.bytes.assign(count, bytes);
  uses.stays.assign(count, false);
  uses.reads.emplace_back();
  for (std::size_t i = 0; i < count; ++i) uses.reads[0].push_back({static_cast<int>(i)});
  return uses;
}

TEST(StreamPlan, AllResidentWhereTheyFit) {
  const WeightUses uses = layers(10, 1 << 20);
  const Residency residency = choose_residents(uses, std::size_t{10} << 20);
  EXPECT_EQ(residency.ring_bytes, 0u);
  EXPECT_EQ(residency.resident, std::vector<bool>(10, true));
  EXPECT_TRUE(plan_fetches(uses.reads[0], uses.bytes, residency).empty());
}

TEST(StreamPlan, StreamedBlocksLieEvenlyOverTheProgram) {
  const Residency residency = choose_residents(layers(100, 1 << 20), std::size_t{52} << 20);
  EXPECT_EQ(residency.ring_bytes, std::size_t{2} << 20);
  EXPECT_EQ(residency.resident_bytes, std::size_t{50} << 20);
  for (std::size_t b = 0; b + 2 < 100; ++b) {
    const int in_three = residency.resident[b] + residency.resident[b + 1] + residency.resident[b + 2];
    EXPECT_TRUE(in_three == 1 || in_three == 2) << "at " << b;
  }
}

// A block that is read once and larger than all others would take a ring of twice its size.
TEST(StreamPlan, WhatWouldNeedALargeRingStays) {
  WeightUses uses = layers(20, 1 << 20);
  uses.bytes[19] = std::size_t{16} << 20;
  const Residency residency = choose_residents(uses, std::size_t{25} << 20);
  EXPECT_TRUE(residency.resident[19]);
  EXPECT_EQ(residency.ring_bytes, std::size_t{2} << 20);
  const Residency tight = choose_residents(uses, std::size_t{16} << 20);  // no room for two of them, nor for it and a ring
  EXPECT_FALSE(tight.resident[19]);
  EXPECT_EQ(tight.ring_bytes, std::size_t{16} << 20);
}

TEST(StreamPlan, SmallAndSharedBlocksStayFirst) {
  WeightUses uses = layers(10, 1 << 20);
  uses.bytes[0] = uses.bytes[5] = kUnit;
  uses.reads[0].push_back({7});
  const Residency residency = choose_residents(uses, (std::size_t{3} << 20) + 2 * kUnit);
  EXPECT_TRUE(residency.resident[0] && residency.resident[5] && residency.resident[7]);
  EXPECT_EQ(residency.resident_bytes, (std::size_t{1} << 20) + 2 * kUnit);
}

TEST(StreamPlan, TooSmallABudgetNamesTheLeast) {
  WeightUses uses = layers(4, 1 << 20);
  uses.reads[0].push_back({0, 1, 2});
  uses.stays[3] = true;
  EXPECT_EQ(least_budget(uses), std::size_t{4} << 20);
  uses.bytes.push_back(1 << 20);
  uses.stays.push_back(false);
  uses.reads[0].push_back({4});
  const Error error = testing::thrown([&] { choose_residents(uses, (std::size_t{4} << 20) - 1); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  EXPECT_NE(std::string(error.what()).find("4194304 at once"), std::string::npos) << error.what();
}

}  // namespace
}  // namespace tandem
