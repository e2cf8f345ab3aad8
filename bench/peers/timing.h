// What every side of a comparison does the same way: probing the machine, random data, checking, statistics, one JSON line.
// Depends on nothing of Tandem, so that peers compile alone.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace timing {

inline double now_us() { return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Share of the time in which this thread, which wants to run, does not: the sum of the gaps longer than 20 µs.
inline double lost_share(double milliseconds = 30) {
  const double start = now_us(), end = start + milliseconds * 1000;
  double lost = 0, last = start;
  while (last < end) {
    const double t = now_us();
    if (t - last > 20) lost += t - last;
    last = t;
  }
  return lost / (last - start);
}

// Input of one rank in one batch; every rank can make every other's.
inline void fill(std::vector<float>& data, int rank, int batch) {
  std::minstd_rand random(static_cast<unsigned>(1 + rank * 7919 + batch * 104729));
  for (float& x : data) x = static_cast<float>(random() % 20001) / 10000.0f - 1.0f;
}

// Whether `out` is the sum of the inputs of all ranks, within rounding.
inline bool is_sum(const std::vector<float>& out, int ranks, int batch) {
  std::vector<double> sum(out.size());
  std::vector<float> input(out.size());
  for (int r = 0; r < ranks; ++r) {
    fill(input, r, batch);
    for (std::size_t i = 0; i < out.size(); ++i) sum[i] += static_cast<double>(input[i]);
  }
  for (std::size_t i = 0; i < out.size(); ++i)
    if (!(std::fabs(static_cast<double>(out[i]) - sum[i]) <= 1e-6 * ranks)) return false;
  return true;
}

inline int batch_size(std::size_t bytes) { return bytes <= 8192 ? 1000 : bytes <= 131072 ? 300 : 20; }

struct Result {
  double min_us, median_us, p99_us;  // over batches, per operation
  double lost;                       // the larger of the two probes
  int correct;                       // every batch's last output was right
};

// Times `batches` batches. all_reduce(in, out) does one operation, barrier() lines the ranks up outside the timed part. Slow sides
// divide the number of operations per batch.
template <typename AllReduce, typename Barrier>
Result measure(std::size_t bytes, int rank, int ranks, int batches, AllReduce all_reduce, Barrier barrier, int divide = 1) {
  std::vector<float> in(bytes / 4), out(bytes / 4);
  fill(in, rank, 0);
  const int operations = std::max(2, batch_size(bytes) / divide);
  for (int i = 0; i < operations; ++i) all_reduce(in, out);
  barrier();
  const double before = lost_share();
  std::vector<double> times;
  bool correct = true;
  for (int batch = 0; batch < batches; ++batch) {
    fill(in, rank, batch);
    std::memset(out.data(), 0xff, bytes);
    barrier();
    const double start = now_us();
    for (int i = 0; i < operations; ++i) all_reduce(in, out);
    times.push_back((now_us() - start) / operations);
    if (batch % 10 == 0) correct = correct && is_sum(out, ranks, batch);
  }
  barrier();
  const double lost = std::max(before, lost_share());
  std::sort(times.begin(), times.end());
  return {times.front(), times[times.size() / 2], times[times.size() * 99 / 100], lost, correct};
}

// The slowest rank counts.
inline Result worst(const std::vector<Result>& all) {
  Result w = all.front();
  for (const Result& r : all) {
    w.min_us = std::max(w.min_us, r.min_us);
    w.median_us = std::max(w.median_us, r.median_us);
    w.p99_us = std::max(w.p99_us, r.p99_us);
    w.lost = std::max(w.lost, r.lost);
    w.correct = w.correct && r.correct;
  }
  return w;
}

inline void print_json(const char* side, int ranks, std::size_t bytes, const Result& r) {
  std::printf(
      "{\"side\": \"%s\", \"operation\": \"all_reduce\", \"ranks\": %d, \"bytes\": %zu, \"min_us\": %.2f, \"median_us\": %.2f, "
      "\"p99_us\": %.2f, \"lost\": %.4f, \"correct\": %s}\n",
      side, ranks, bytes, r.min_us, r.median_us, r.p99_us, r.lost, r.correct ? "true" : "false");
  std::fflush(stdout);
}

constexpr std::size_t kSizes[] = {4 << 10, 64 << 10, 4 << 20};
constexpr int kBatches = 60;

}  // namespace timing
