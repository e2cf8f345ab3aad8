#include "device/cuda/fills.h"

#include <cstdint>
#include <vector>

#include "device/cuda/fill_kernels.h"
#include "device/cuda/runtime.h"

namespace tandem::cuda {
namespace {

struct Edges {
  std::vector<cudaGraphNode_t> nodes;
  std::vector<cudaGraphEdgeData> data;
};

// With edges that tell kernels that start early from others; their names changed.
#if CUDART_VERSION >= 13000
constexpr auto kBefore = cudaGraphNodeGetDependencies;
constexpr auto kAfter = cudaGraphNodeGetDependentNodes;
constexpr auto kAdd = cudaGraphAddDependencies;
#else
constexpr auto kBefore = cudaGraphNodeGetDependencies_v2;
constexpr auto kAfter = cudaGraphNodeGetDependentNodes_v2;
constexpr auto kAdd = cudaGraphAddDependencies_v2;
#endif

// `get` is kBefore or kAfter: asked without room it says how many there are.
template <typename Get>
Edges edges_of(cudaGraphNode_t node, const Get& get) {
  std::size_t count = 0;
  check(get(node, nullptr, nullptr, &count), "reading a graph");
  Edges edges{std::vector<cudaGraphNode_t>(count), std::vector<cudaGraphEdgeData>(count)};
  if (count > 0) check(get(node, edges.nodes.data(), edges.data.data(), &count), "reading a graph");
  return edges;
}

cudaGraphNode_t add_fill(cudaGraph_t graph, const cudaMemsetParams& fill) {
  auto* to = static_cast<std::byte*>(fill.dst);
  unsigned value = fill.value, bytes = fill.elementSize;
  std::uint64_t count = fill.width;
  void* arguments[] = {&to, &value, &bytes, &count};
  cudaKernelNodeParams kernel{};
  kernel.func = fill_kernel();
  kernel.gridDim = dim3(static_cast<unsigned>((count + kFillThreads - 1) / kFillThreads));
  kernel.blockDim = dim3(kFillThreads);
  kernel.kernelParams = arguments;
  cudaGraphNode_t node = nullptr;
  check(cudaGraphAddKernelNode(&node, graph, nullptr, 0, &kernel), "adding a fill to a graph");
  return node;
}

void replace(cudaGraph_t graph, cudaGraphNode_t node, const cudaMemsetParams& fill) {
  const cudaGraphNode_t kernel = add_fill(graph, fill);
  const Edges in = edges_of(node, kBefore), out = edges_of(node, kAfter);
  const std::vector<cudaGraphNode_t> to(in.nodes.size(), kernel), from(out.nodes.size(), kernel);
  if (!to.empty()) check(kAdd(graph, in.nodes.data(), to.data(), in.data.data(), to.size()), "adding a fill to a graph");
  if (!from.empty()) check(kAdd(graph, from.data(), out.nodes.data(), out.data.data(), from.size()), "adding a fill to a graph");
  check(cudaGraphDestroyNode(node), "taking a fill out of a graph");
}

}  // namespace

std::size_t fill_by_kernels(cudaGraph_t graph) {
  std::size_t count = 0, replaced = 0;
  check(cudaGraphGetNodes(graph, nullptr, &count), "reading a graph");
  std::vector<cudaGraphNode_t> nodes(count);
  if (count > 0) check(cudaGraphGetNodes(graph, nodes.data(), &count), "reading a graph");
  for (const cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type{};
    check(cudaGraphNodeGetType(node, &type), "reading a graph");
    if (type != cudaGraphNodeTypeMemset) continue;
    cudaMemsetParams fill{};
    check(cudaGraphMemsetNodeGetParams(node, &fill), "reading a graph");
    if (fill.height > 1 || fill.width == 0 || fill.width * fill.elementSize > kMostFilledByKernel) continue;
    replace(graph, node, fill);
    ++replaced;
  }
  return replaced;
}

}  // namespace tandem::cuda
