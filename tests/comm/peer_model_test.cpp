// The protocol of collectives over peer memory holds in every interleaving of small cases, and what it must not be is found to fail.
#include "comm/peer_model.h"

#include <gtest/gtest.h>

namespace tandem::testing {
namespace {

constexpr std::size_t kMost = 500'000;

template <typename Protocol>
void expect_right(const Protocol& protocol) {
  const Search result = search(protocol, kMost);
  EXPECT_FALSE(result.found) << *result.found;
  EXPECT_TRUE(result.complete) << "only " << result.states << " states were tried";
  EXPECT_GT(result.states, 100u);
}

template <typename Protocol>
void expect_wrong(const Protocol& protocol) {
  const Search result = search(protocol, kMost);
  EXPECT_TRUE(result.found) << "nothing wrong in " << result.states << " states";
}

// Two graphs of one and of three calls, of different sizes: A B A A B.
const std::vector<int> kTwoGraphs = {2, 1, 2, 1, 2, 2, 1, 2, 1};

TEST(PeerModel, WordsOfTwoRanksInTwoGraphs) {
  expect_right(WordProtocol{.ranks = 2, .sizes = kTwoGraphs});
  expect_right(WordProtocol{.ranks = 2, .sizes = kTwoGraphs, .counts_per_word = false});
}

TEST(PeerModel, WordsOfThreeRanks) {
  expect_right(WordProtocol{.ranks = 3, .sizes = {1, 1, 1, 1, 1, 1}});
  const Search most = search(WordProtocol{.ranks = 3, .sizes = {1, 2, 1, 2}}, 150'000);  // there are millions
  EXPECT_FALSE(most.found) << *most.found;
}

TEST(PeerModel, ThreeSlotsEmptiedByTheFollowingCallAreWrong) {
  expect_wrong(WordProtocol{.ranks = 2, .sizes = {2, 1, 2, 2, 2}, .slots = 3, .counts_per_word = false, .wipes_at_once = false});
  // Equal sizes hide it, and so does a number of calls per graph that is a multiple of three.
  expect_right(WordProtocol{.ranks = 2, .sizes = {2, 2, 2, 2, 2}, .slots = 3, .counts_per_word = false, .wipes_at_once = false});
  expect_wrong(WordProtocol{
      .ranks = 2, .sizes = {1, 1, 1, 1, 1, 1, 1, 1}, .baked_slots = {0, 1, 2, 0, 0, 1, 2, 0}, .slots = 3, .wipes_at_once = false});
}

TEST(PeerModel, SlotsThatAGraphOfOddLengthRepeatsAreWrong) {
  expect_wrong(WordProtocol{.ranks = 2, .sizes = {1, 1, 1, 1, 1, 1}, .baked_slots = {0, 1, 0, 0, 1, 0}});
  expect_right(WordProtocol{.ranks = 2, .sizes = {1, 1, 1, 1, 1, 1}, .baked_slots = {0, 1, 0, 1, 0, 1}});
}

TEST(PeerModel, OneSlotIsWrong) { expect_wrong(WordProtocol{.ranks = 2, .sizes = {1, 1, 1}, .slots = 1}); }

TEST(PeerModel, WordsNeedTheEndOfAKernelBetweenCalls) {
  expect_wrong(WordProtocol{.ranks = 2, .sizes = {1, 1, 1, 1}, .kernel_border = false});
}

TEST(PeerModel, Arrivals) {
  expect_right(ArrivalProtocol{.ranks = 2, .words = 2, .steps = 6});
  expect_right(ArrivalProtocol{.ranks = 3, .words = 1, .steps = 4});
  expect_wrong(ArrivalProtocol{.ranks = 2, .words = 1, .steps = 4, .slots = 1});
  expect_wrong(ArrivalProtocol{.ranks = 2, .words = 1, .steps = 4, .fence = false});
}

TEST(PeerModel, RoomsOfTwoRanks) {
  expect_right(RoomProtocol{.ranks = 2, .groups = {1, 1, 1, 1}});
  expect_right(RoomProtocol{.ranks = 2, .groups = {2, 1}});
  const Search most = search(RoomProtocol{.ranks = 2, .groups = {2, 1, 2}}, 150'000);  // there are more
  EXPECT_FALSE(most.found) << *most.found;
}

TEST(PeerModel, RoomsOfThreeRanks) {
  const Search most = search(RoomProtocol{.ranks = 3, .groups = {1, 1}}, 150'000);  // there are more
  EXPECT_FALSE(most.found) << *most.found;
}

TEST(PeerModel, RoomsNeedTheirOrder) {
  expect_wrong(RoomProtocol{.ranks = 2, .groups = {1, 1}, .fence = false});
  expect_wrong(RoomProtocol{.ranks = 2, .groups = {1, 1}, .awaits_back = false});
}

// Results that are pushed before what they are made of was read say nothing of the room of the reader.
TEST(PeerModel, RoomsAreOverwrittenWhereResultsDoNotFollow) {
  expect_wrong(RoomProtocol{.ranks = 2, .groups = {1, 1}, .back_follows = false});
}

}  // namespace
}  // namespace tandem::testing
