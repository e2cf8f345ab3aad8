// cuBLASLt alone beside bench/gpu_bench: products under the same names, with the best of all algorithms that it offers for the shape, found
// by timing them, and as much workspace as ours has. Of Tandem only the opening of the library is used.
//
//   gpu_cublaslt     reads names from stdin, a line each ("MatMul 2048x14336x4096 bf16"); answers each with a line of JSON
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "core/check.h"
#include "ops/matmul/cublaslt_cuda.h"

namespace {

using namespace tandem;
using namespace tandem::cuda;

constexpr int kMostAlgorithms = 64;
constexpr std::size_t kWorkspace = 32 << 20;

void require(cudaError_t status) {
  if (status != cudaSuccess) fail(ErrorCode::internal, "CUDA: {}", cudaGetErrorString(status));
}

struct Shape3 {
  std::int64_t m = 0, k = 0, n = 0;
  DType dtype = DType::bf16;
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
  return shape;
}

// Memory of the GPU, freed with its owner.
struct Memory {
  explicit Memory(std::size_t bytes) { require(cudaMalloc(&data, bytes)); }
  ~Memory() { cudaFree(data); }
  Memory(const Memory&) = delete;
  void* data = nullptr;
};

// One block of random values, again and again.
void fill_random(void* to, std::size_t bytes, DType dtype, unsigned seed) {
  std::vector<std::byte> block(std::size_t{1} << 20);
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-0.1f, 0.1f);
  const std::size_t size = dtype == DType::f32 ? 4 : 2;
  for (std::size_t at = 0; at < block.size(); at += size) {
    const auto bits = std::bit_cast<std::uint32_t>(uniform(random));
    const std::uint32_t value = dtype == DType::bf16 ? bits >> 16 : bits;
    std::memcpy(block.data() + at, &value, size);
  }
  for (std::size_t at = 0; at < bytes; at += block.size())
    require(cudaMemcpy(static_cast<std::byte*>(to) + at, block.data(), std::min(block.size(), bytes - at), cudaMemcpyHostToDevice));
}

class Product {
 public:
  explicit Product(const Shape3& shape)
      : shape_(shape), handle_(cublaslt_handle(0)), desc_(make_desc(shape.dtype)), workspace_(kWorkspace) {
    b_ = make_layout(shape.dtype, shape.n, shape.k, 1, 0);
    a_ = make_layout(shape.dtype, shape.k, shape.m, 1, 0);
    c_ = make_layout(shape.dtype, shape.n, shape.m, 1, 0);
    const auto size = [&](std::int64_t rows, std::int64_t columns) { return bytes(shape.dtype, rows * columns); };
    const std::size_t sizes[] = {size(shape.m, shape.k), size(shape.k, shape.n), size(shape.m, shape.n)};
    const auto sets = static_cast<std::size_t>(std::clamp(std::ceil(1e9 / static_cast<double>(sizes[0] + sizes[1] + sizes[2])), 2.0, 64.0));
    for (std::size_t set = 0; set < sets; ++set)
      for (std::size_t i = 0; i < 3; ++i) {
        memory_.push_back(std::make_unique<Memory>(sizes[i]));
        if (i < 2) fill_random(memory_.back()->data, sizes[i], shape.dtype, static_cast<unsigned>(set * 2 + i));
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

  // Microseconds of one call, of `calls` in a graph.
  double time(const cublasLtMatmulHeuristicResult_t& chosen, int calls) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    for (int i = 0; i < 2; ++i) call(chosen, i);
    require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < calls; ++i) call(chosen, i);
    require(cudaStreamEndCapture(stream_, &graph));
    require(cudaGraphInstantiate(&exec, graph, 0));
    cudaEvent_t begin = nullptr, end = nullptr;
    require(cudaEventCreate(&begin));
    require(cudaEventCreate(&end));
    require(cudaGraphLaunch(exec, stream_));
    require(cudaEventRecord(begin, stream_));
    require(cudaGraphLaunch(exec, stream_));
    require(cudaEventRecord(end, stream_));
    require(cudaEventSynchronize(end));
    float ms = 0;
    require(cudaEventElapsedTime(&ms, begin, end));
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    return ms * 1e3 / calls;
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

nlohmann::json measure(const std::string& name, std::map<std::string, std::size_t>& best_of) {
  Product product(shape_of(name));
  const auto algorithms = product.algorithms();
  if (algorithms.empty()) fail(ErrorCode::unsupported, "cuBLASLt offers no algorithm");
  const int few = std::clamp(static_cast<int>(3000 / product.time(algorithms[0], 3)), 3, 100);
  if (!best_of.contains(name)) {
    double least = 1e30;
    for (std::size_t i = 0; i < algorithms.size(); ++i) try {
        if (const double us = product.time(algorithms[i], few); us < least) least = us, best_of[name] = i;
      } catch (const Error&) {  // one that is offered, but does not run
      }
  }
  const auto& best = algorithms.at(best_of[name]);
  const double once = product.time(best, few);
  return {{"name", name},
          {"us", product.time(best, std::clamp(static_cast<int>(20000 / once), 3, 500))},
          {"algorithm", best_of[name]},
          {"algorithms", algorithms.size()}};
}

}  // namespace

int main() {
  std::map<std::string, std::size_t> best_of;
  for (std::string name; std::getline(std::cin, name);) {
    nlohmann::json answer = {{"name", name}};
    try {
      answer = measure(name, best_of);
    } catch (const Error& error) {
      answer["failed"] = error.what();
    }
    std::cout << answer.dump() << std::endl;
  }
}
