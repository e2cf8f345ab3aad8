#include <algorithm>
#include <cstring>

#include "comm/norm_oracle.h"
#include "gpu/gpu_ranks.h"
#include "ops/kernel.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem::test {
namespace {

constexpr std::chrono::seconds kLimit{20};

OpCall call_of(const NormOp& op, int ranks) {
  const OpDef& def = op.centers ? ops::AllReduceAddLayerNorm : ops::AllReduceAddRmsNorm;
  OpCall call{&def, Attributes(&def.fields), {}, {}};
  call.attributes.set("num_ranks", std::int64_t{ranks});
  const Type rows{op.dtype, dims_of_shape({op.rows, op.length})}, row{op.dtype, dims_of_shape({op.length})};
  call.operands = {rows, rows, row};
  if (op.centers) call.operands.emplace_back(row);
  if (op.offset) call.operands.emplace_back(row);
  call.results = {rows, rows};
  return call;
}

}  // namespace

void run_and_check_norm(GpuRank& rank, Group& group, const NormOp& op, std::uint64_t seed) {
  Device& device = *rank.device;
  const OpCall call = call_of(op, group.size());
  const KernelDef* kernel = find_kernel(op.centers ? "cuda_all_reduce_add_layer_norm" : "cuda_all_reduce_add_rms_norm");
  check(kernel && kernel->in_place_operand == 0, "the op has a kernel of GPUs that works in place");
  const std::vector<const std::byte*> no_weights(call.operands.size(), nullptr);
  const auto prepared = kernel->prepare({.call = call, .weights = no_weights, .group = &group, .device = &device});
  const std::size_t shift = op.shifted && group.rank() == 0 ? bytes(op.dtype, 1) : 0;
  std::vector<DeviceMemory> memory;
  const auto room = [&](const Type& type) {
    memory.emplace_back(rank.device, bytes(op.dtype, element_count(shape_of(type))) + 64);
    return memory.back().data() + shift;
  };
  std::vector<std::byte*> given;
  for (const auto& operand : call.operands) given.push_back(room(*operand));
  std::byte* const results[] = {op.in_place ? given[0] : room(call.results[0]), room(call.results[1])};
  const std::vector<const std::byte*> operands(given.begin(), given.end());
  const DeviceMemory workspace(rank.device, std::max<std::size_t>(prepared->workspace_bytes(), 1));
  const auto work = [&] { prepared->run({operands, results, workspace.data(), *rank.stream, Deadline::after(kLimit)}); };
  std::unique_ptr<Recording> recording;
  Tensor y(op.dtype, {op.rows, op.length}), sum(op.dtype, {op.rows, op.length});
  for (int round = 0; round < 3; ++round) {
    const ReducedNorm inputs = random_reduced_norm(group.size(), op.dtype, op.rows, op.length, op.centers, op.offset,
                                                   seed * 30 + static_cast<std::uint64_t>(round) * 10);
    const auto poison = [&](Tensor& tensor, std::byte* at) {
      if (tensor.size_bytes() > 0) std::memset(tensor.mutable_data(), 0x5a, tensor.size_bytes());
      device.copy(at, tensor.data(), tensor.size_bytes(), *rank.stream);
    };
    poison(y, results[0]);
    poison(sum, results[1]);
    std::vector<const Tensor*> tensors = {&inputs.x[static_cast<std::size_t>(group.rank())], &inputs.residual, &inputs.scale};
    if (inputs.bias) tensors.push_back(&*inputs.bias);
    if (inputs.offset) tensors.push_back(&*inputs.offset);
    for (std::size_t i = 0; i < tensors.size(); ++i) device.copy(given[i], tensors[i]->data(), tensors[i]->size_bytes(), *rank.stream);
    if (round == 1) recording = device.record(*rank.stream, work);
    if (recording) recording->launch(*rank.stream);
    else work();
    device.copy(y.mutable_data(), results[0], y.size_bytes(), *rank.stream);
    device.copy(sum.mutable_data(), results[1], sum.size_bytes(), *rank.stream);
    rank.stream->wait(Deadline::after(kLimit));
    check_reduced_norm(inputs, y, sum, group.backend() == "nccl" && op.dtype != DType::f32 ? group.size() : 1);
  }
  ++rank.rows;
}

}  // namespace tandem::test
