// cuBLASLt alone beside bench/gpu_bench: products under the same names, of operands of the same distribution, with the best of all
// algorithms that it offers for the shape, found by timing them by turns, and as much workspace as ours has. Of Tandem only the opening of
// the library is used.
//
//   gpu_cublaslt     reads names from stdin, a line each ("MatMul 2048x14336x4096 bf16", "MatMul 4096 f32 as TF32"); answers each with a
//   line
//                    of JSON
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/check.h"
#include "gpu_alone.h"
#include "ops/matmul/cublaslt_cuda.h"
#include "steady.h"

namespace {

using namespace tandem;
using namespace tandem::cuda;
using alone::Memory, alone::require;

constexpr int kMostAlgorithms = 64, kRounds = 5;
constexpr std::size_t kWorkspace = 32 << 20;

struct Shape3 {
  std::int64_t m = 0, k = 0, n = 0;
  DType dtype = DType::bf16;
  bool tf32 = false;
};

Shape3 shape_of(const std::string& name) {
  std::istringstream words(name);
  std::string op, extents, dtype;
  words >> op >> extents >> dtype;
  if (op != "MatMul") fail(ErrorCode::unsupported, "it multiplies only");
  Shape3 shape;
  char by = 0;
  std::istringstream numbers(extents);
  numbers >> shape.m;
  if (!(numbers >> by >> shape.k >> by >> shape.n)) shape.k = shape.n = shape.m;
  shape.dtype = parse_dtype(dtype);
  shape.tf32 = name.ends_with("as TF32");
  return shape;
}

class Product {
 public:
  explicit Product(const Shape3& shape)
      : shape_(shape), handle_(cublaslt_handle(0)), desc_(make_desc(shape.dtype, shape.tf32)), workspace_(kWorkspace) {
    b_ = make_layout(shape.dtype, shape.n, shape.k, 1, 0);
    a_ = make_layout(shape.dtype, shape.k, shape.m, 1, 0);
    c_ = make_layout(shape.dtype, shape.n, shape.m, 1, 0);
    const auto size = [&](std::int64_t rows, std::int64_t columns) { return bytes(shape.dtype, rows * columns); };
    const std::size_t sizes[] = {size(shape.m, shape.k), size(shape.k, shape.n), size(shape.m, shape.n)};
    const auto sets = static_cast<std::size_t>(std::clamp(std::ceil(1e9 / static_cast<double>(sizes[0] + sizes[1] + sizes[2])), 2.0, 64.0));
    const float deviation = 1 / std::sqrt(std::sqrt(static_cast<float>(shape.k)));
    for (std::size_t set = 0; set < sets; ++set)
      for (std::size_t i = 0; i < 3; ++i) {
        memory_.push_back(std::make_unique<Memory>(sizes[i]));
        if (i < 2) alone::fill_normal(memory_.back()->data, sizes[i], shape.dtype, deviation, static_cast<unsigned>(set * 2 + i));
      }
    require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~Product() { cudaStreamDestroy(stream_); }
  Product(const Product&) = delete;

  std::vector<cublasLtMatmulHeuristicResult_t> algorithms() const {
    cublasLtMatmulPreference_t made = nullptr;
    check_cublas(cublaslt().make_preference(&made), "saying what algorithms may need");
    const LtPreference preference(made);
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
    std::vector<cublasLtMatmulHeuristicResult_t> found(kMostAlgorithms);
    int count = 0;
    check_cublas(cublaslt().heuristic(handle_, desc_.get(), b_.get(), a_.get(), c_.get(), c_.get(), preference.get(), kMostAlgorithms,
                                      found.data(), &count),
                 "asking for algorithms");
    found.resize(static_cast<std::size_t>(count));
    std::erase_if(found, [](const auto& one) { return one.state != CUBLAS_STATUS_SUCCESS; });
    return found;
  }

  // Microseconds of one call, of `calls` in a graph that is replayed so often.
  double time(const cublasLtMatmulHeuristicResult_t& chosen, int calls, int warm = 1, int timed = 1) {
    return alone::microseconds(
        stream_, calls, [&](int i) { call(chosen, i); }, warm, timed);
  }

 private:
  void call(const cublasLtMatmulHeuristicResult_t& chosen, int turn) {
    const float one = 1, zero = 0;
    const std::size_t set = static_cast<std::size_t>(turn) * 3 % memory_.size();
    check_cublas(cublaslt().matmul(handle_, desc_.get(), &one, memory_[set + 1]->data, b_.get(), memory_[set]->data, a_.get(), &zero,
                                   memory_[set + 2]->data, c_.get(), memory_[set + 2]->data, c_.get(), &chosen.algo, workspace_.data,
                                   kWorkspace, stream_),
                 "a product");
  }

  Shape3 shape_;
  cublasLtHandle_t handle_;
  LtDesc desc_;
  LtLayout a_, b_, c_;
  Memory workspace_;
  std::vector<std::unique_ptr<Memory>> memory_;
  cudaStream_t stream_ = nullptr;
};

// The place of the algorithm whose median is the least, of rounds by turns; those that the first round finds far behind are left out of the
// others.
std::size_t best_of(Product& product, const std::vector<cublasLtMatmulHeuristicResult_t>& algorithms, int calls) {
  constexpr double kNever = 1e30, kFarBehind = 1.3;
  std::vector<std::vector<double>> times(algorithms.size());
  double least = kNever;
  for (int round = 0; round < kRounds; ++round)
    for (std::size_t i = 0; i < algorithms.size(); ++i) try {
        if (round > 0 && (times[i].empty() || times[i][0] > kFarBehind * least)) continue;
        times[i].push_back(product.time(algorithms[i], calls));
        if (round == 0) least = std::min(least, times[i][0]);
      } catch (const Error&) {  // one that is offered, but does not run
        times[i].clear();
      }
  const auto median = [](std::vector<double> of) {
    if (of.size() < kRounds) return kNever;
    std::ranges::sort(of);
    return of[of.size() / 2];
  };
  const auto best = std::ranges::min_element(times, {}, median);
  if (median(*best) == kNever) fail(ErrorCode::unsupported, "no algorithm of cuBLASLt runs");
  return static_cast<std::size_t>(best - times.begin());
}

nlohmann::json measure(const std::string& name, std::map<std::string, std::size_t>& best) {
  Product product(shape_of(name));
  const auto algorithms = product.algorithms();
  if (algorithms.empty()) fail(ErrorCode::unsupported, "cuBLASLt offers no algorithm");
  const int few = std::clamp(static_cast<int>(3000 / product.time(algorithms[0], 3)), 3, 100);
  if (!best.contains(name)) best[name] = best_of(product, algorithms, few);
  const auto& chosen = algorithms.at(best[name]);
  const double once = product.time(chosen, few);
  const int calls = std::clamp(static_cast<int>(20000 / once), 3, 500);
  // As long as the engine beside it works.
  const bool steady = name.ends_with("through an engine");
  const auto replays = [&](double seconds) { return steady ? static_cast<int>(std::ceil(seconds * 1e6 / (once * calls))) : 1; };
  return {{"name", name},
          {"us", product.time(chosen, calls, replays(bench::kWarmSeconds), replays(bench::kTimedSeconds))},
          {"algorithm", best[name]},
          {"algorithms", algorithms.size()}};
}

}  // namespace

int main() {
  std::map<std::string, std::size_t> best;
  for (std::string name; std::getline(std::cin, name);) {
    nlohmann::json answer = {{"name", name}};
    try {
      answer = measure(name, best);
    } catch (const Error& error) {
      answer["failed"] = error.what();
    }
    std::cout << answer.dump() << std::endl;
  }
}
