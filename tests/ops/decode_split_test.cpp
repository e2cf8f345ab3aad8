// How attention of few queries is shared out over a GPU: a model of time, so these say what it must not get wrong.
#include "ops/attention/decode_split.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace tandem::cuda {
namespace {

constexpr int kStep = 8192, kMultiprocessors = 132;

// As an H200 has it: of large clusters fewer fit than of their blocks alone.
std::vector<DecodeBlocks> kinds(int most_cluster) {
  constexpr int kAtOnce[] = {264, 264, 237, 248, 235, 234, 224, 240, 207, 210, 176, 192, 182, 196, 210, 224};
  std::vector<DecodeBlocks> list;
  for (int cluster = 1; cluster <= most_cluster; ++cluster) list.push_back({cluster, 4, kAtOnce[cluster - 1], 2});
  return list;
}

DecodeSplit split(std::int64_t tasks, std::int64_t keys, int most_cluster = 16) {
  return decode_split(tasks, (keys + 15) / 16, kStep, kMultiprocessors, kinds(most_cluster));
}

TEST(DecodeSplit, OneKernelWhereClustersFillTheGpu) {
  for (const std::int64_t tasks : {16, 32, 64, 128, 1024}) EXPECT_EQ(split(tasks, 32768).parts, 1) << tasks << " tasks";
  EXPECT_EQ(split(8, 1024).parts, 1);  // and where a second kernel would take longer than it saves
  EXPECT_GE(split(8, 1024).cluster, 8);
}

// What was measured for 8 kv heads: of 32768 keys 52 µs by clusters of 16, which leave blocks that share a multiprocessor, 36.9 by 16
// parts, 38.8 by 33; of 8192 keys 14.2 by 16 parts, 15.7 by 33. For 128 heads and 1024 keys 19.6 without clusters, 20.0 by two.
TEST(DecodeSplit, AsMeasured) {
  for (const std::int64_t keys : {8192, 16384, 32768}) {
    EXPECT_EQ(split(8, keys).cluster, 1);
    EXPECT_EQ(split(8, keys).parts, 16);
    EXPECT_TRUE(split(8, keys).asks_early) << keys;
  }
  for (const std::int64_t keys : {1024, 65536}) EXPECT_FALSE(split(8, keys).asks_early) << keys;
  EXPECT_FALSE(split(128, 1024).asks_early);
  EXPECT_EQ(split(128, 1024).cluster, 1);
}

TEST(DecodeSplit, PartsWhereOneClusterIsTooLittle) {
  const DecodeSplit one = split(1, 32768);
  EXPECT_GE(one.cluster * one.parts, 100);
  const DecodeSplit without = split(8, 32768, 1);
  EXPECT_EQ(without.cluster, 1);
  EXPECT_GE(without.parts, 12);
}

TEST(DecodeSplit, ManyTasksAreNotCutSmall) { EXPECT_EQ(split(10'000, 1024).cluster * split(10'000, 1024).parts, 1); }

TEST(DecodeSplit, NoMoreSlicesThanSteps) {
  std::mt19937 random(7);
  for (int i = 0; i < 2000; ++i) {
    const auto tasks = static_cast<std::int64_t>(random() % 300 + 1), keys = static_cast<std::int64_t>(random() % 5000 + 64);
    const DecodeSplit found = split(tasks, keys, random() % 2 == 0 ? 16 : 1);
    ASSERT_TRUE(found.parts == 1 || found.cluster * found.parts <= (keys + 15) / 16) << tasks << " tasks, " << keys << " keys, seed 7";
    ASSERT_EQ(found.warps, 4);
  }
}

TEST(DecodeSplit, WhatTheGpuCannotHaveIsNotTaken) {
  std::vector<DecodeBlocks> list = kinds(16);
  for (DecodeBlocks& kind : list)
    if (kind.cluster > 8) kind.at_once = 0;
  for (const std::int64_t tasks : {1, 4, 8}) EXPECT_LE(decode_split(tasks, 2048, kStep, kMultiprocessors, list).cluster, 8);
}

}  // namespace
}  // namespace tandem::cuda
