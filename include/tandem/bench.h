// Timing what a model is made of, on the ranks of a team: collectives, and attention over a split sequence. Public.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tandem/engine.h"
#include "tandem/team.h"

namespace tandem {

struct CollectiveBench {
  std::vector<std::string> operations;                             // "all_reduce", …; empty: all of them
  std::vector<std::int64_t> sizes = {4 << 10, 64 << 10, 4 << 20};  // bytes of the input of one rank
  std::string reduce = "sum";
  DType dtype = DType::f32;
  int ranks = 2;
  int runs = 20;  // timed; each of several calls in a row
  TeamOptions team;
  ProgressCallback progress = {};
};

struct CollectiveTime {
  std::string operation;
  std::int64_t bytes = 0;
  double min_us = 0, median_us = 0, p99_us = 0;  // of one call, on the slowest rank
  double bus_gb_s = 0;                           // bytes that every rank must send or receive at least, over the median
  double error = 0;  // largest difference from a plain loop over the same inputs, relative to the largest magnitude
};

// Random inputs, checked outputs. Throws Error; a wrong result is Error(internal).
std::vector<CollectiveTime> bench_collectives(const CollectiveBench& options);

struct AttentionBench {
  std::int64_t batch = 1, heads = 8, kv_heads = 8, sequence = 1024, head_size = 64;
  bool causal = false;
  DType dtype = DType::f32;
  int ranks = 2;
  int runs = 20;
  TeamOptions team;
  ProgressCallback progress = {};
};

struct AttentionTime {
  int ranks = 1;
  double min_ms = 0, median_ms = 0, p99_ms = 0;  // of the slowest rank
  double gflop_s = 0;
  double error = 0;      // largest difference from one rank, relative to the largest magnitude
  std::string exchange;  // what is sent, empty for one rank
};

// One rank, then the sequence split over all.
std::vector<AttentionTime> bench_attention(const AttentionBench& options);

}  // namespace tandem
