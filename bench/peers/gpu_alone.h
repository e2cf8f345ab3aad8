// What programs that time a library alone on a GPU do alike: memory, random operands, calls in a graph.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "core/check.h"
#include "tandem/types.h"

namespace alone {

inline void require(cudaError_t status) {
  if (status != cudaSuccess) tandem::fail(tandem::ErrorCode::internal, "CUDA: {}", cudaGetErrorString(status));
}

// Memory of the GPU, freed with its owner.
struct Memory {
  explicit Memory(std::size_t bytes) { require(cudaMalloc(&data, std::max<std::size_t>(bytes, 256))); }
  ~Memory() { cudaFree(data); }
  Memory(const Memory&) = delete;
  void* data = nullptr;
};

// One block of random values of f32 or bf16, again and again: normal ones of the deviation that gpu_bench gives such operands, for what
// multipliers draw depends on what they are given.
inline void fill_normal(void* to, std::size_t bytes, tandem::DType dtype, float deviation, unsigned seed) {
  std::vector<std::byte> block(std::size_t{2} << 20);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  const std::size_t size = dtype == tandem::DType::f32 ? 4 : 2;
  for (std::size_t at = 0; at < block.size(); at += size) {
    const auto bits = std::bit_cast<std::uint32_t>(normal(random));
    const std::uint32_t value = dtype == tandem::DType::bf16 ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : bits;
    std::memcpy(block.data() + at, &value, size);
  }
  for (std::size_t at = 0; at < bytes; at += block.size())
    require(cudaMemcpy(static_cast<std::byte*>(to) + at, block.data(), std::min(block.size(), bytes - at), cudaMemcpyHostToDevice));
}

// Microseconds of one call, of `calls` in a graph that is replayed `warm` times and then `timed` times: call(i) gives the i-th to the
// stream.
template <typename Call>
double microseconds(cudaStream_t stream, int calls, const Call& call, int warm = 1, int timed = 1) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  for (int i = 0; i < 2; ++i) call(i);
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < calls; ++i) call(i);
  require(cudaStreamEndCapture(stream, &graph));
  require(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin = nullptr, end = nullptr;
  require(cudaEventCreate(&begin));
  require(cudaEventCreate(&end));
  for (int i = 0; i < warm; ++i) require(cudaGraphLaunch(exec, stream));
  require(cudaEventRecord(begin, stream));
  for (int i = 0; i < timed; ++i) require(cudaGraphLaunch(exec, stream));
  require(cudaEventRecord(end, stream));
  require(cudaEventSynchronize(end));
  float ms = 0;
  require(cudaEventElapsedTime(&ms, begin, end));
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  return static_cast<double>(ms) * 1e3 / calls / timed;
}

}  // namespace alone
