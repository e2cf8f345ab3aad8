#include "gpu/gpu_ranks.h"

#include <cuda_runtime.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>

#include "comm/oracle.h"
#include "comm/rank_processes.h"
#include "comm/ranks.h"
#include "core/check.h"
#include "ops/kernel.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem::test {
namespace {

constexpr std::chrono::seconds kLimit{20};

OpCall op_call(const CollectiveCall& call, const Shape& shape, int size) {
  const CollectiveInfo& row = info(call.kind);
  const OpDef& op = *all_ops().find(std::string(row.op));
  OpCall made{&op, Attributes(&op.fields), {}, {}};
  Attributes& a = made.attributes;
  a.set("num_ranks", std::int64_t{size});
  if (row.reduces) a.set("reduce", std::string(to_string(*call.reduction)));
  if (row.rooted) a.set("root", std::int64_t{call.root});
  if (a.has("dim")) a.set("dim", std::int64_t{call.axis});
  if (a.has("split_dim")) a.set("split_dim", std::int64_t{call.split_axis}), a.set("concat_dim", std::int64_t{call.concat_axis});
  if (a.has("shift")) a.set("shift", std::int64_t{call.shift});
  made.operands.push_back(Type{call.dtype, dims_of_shape(shape)});
  CollectiveCall shaped = call;
  shaped.dims = shape;
  made.results.push_back(Type{call.dtype, dims_of_shape(collective_output_dims(shaped, size))});
  return made;
}

// NCCL rounds 16-bit floats after every step, which with two ranks is the one rounding that the oracle allows.
bool rounds_often(const CollectiveCall& call, int size) {
  return size > 2 && (call.dtype == DType::f16 || call.dtype == DType::bf16) && call.reduction && *call.reduction != Reduction::max &&
         *call.reduction != Reduction::min;
}

void check_rounded(const CollectiveCall& call, int rank, const std::vector<Tensor>& inputs, const Tensor& out) {
  const double step = call.dtype == DType::f16 ? 0x1p-10 : 0x1p-7;
  const std::vector<double> got = out.to_doubles();
  const Shape& shape = inputs[0].shape();
  const std::int64_t inner = element_count(Shape(shape.begin() + call.axis + 1, shape.end()));
  const std::int64_t width = call.kind == Collective::reduce_scatter
                                 ? shape[static_cast<std::size_t>(call.axis)] / static_cast<std::int64_t>(inputs.size()) * inner
                                 : 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    std::int64_t at = static_cast<std::int64_t>(i);
    if (width > 0) at = at / width * width * static_cast<std::int64_t>(inputs.size()) + rank * width + at % width;
    double exact = call.reduction == Reduction::prod ? 1 : 0, magnitude = exact;
    for (const Tensor& input : inputs) {
      const double value = input.at(at);
      exact = call.reduction == Reduction::prod ? exact * value : exact + value;
      magnitude = call.reduction == Reduction::prod ? magnitude * std::fabs(value) : magnitude + std::fabs(value);
    }
    if (call.reduction == Reduction::avg) exact /= static_cast<double>(inputs.size()), magnitude /= static_cast<double>(inputs.size());
    if (call.kind == Collective::reduce && rank != call.root) exact = magnitude = 0;
    if (std::fabs(got[i] - exact) > static_cast<double>(inputs.size()) * step * magnitude)
      fail(ErrorCode::internal, "{} on rank {}: element {} is {}, exact {}", to_string(call), rank, i, got[i], exact);
  }
}

}  // namespace

int gpu_count() {
  const pid_t child = fork();
  if (child == 0) {
    int count = 0;
    _exit(cudaGetDeviceCount(&count) == cudaSuccess ? std::min(count, 64) : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

GpuRank::GpuRank(Group& control, const std::string& backend)
    : control(control),
      device(open_device("cuda", control.rank())),
      on_device(*device),
      stream(device->make_stream(1)),
      group(make_gpu_group(control, *device, {.backend = backend}, &why)) {}

void run_gpu_ranks(Isolation isolation, int world, const std::string& backend, const std::function<void(GpuRank&)>& body) {
  const auto life = [&](Group& control) {
    GpuRank rank(control, backend);
    if (!rank.group && backend != "host") fail(ErrorCode::unsupported, "{}", rank.why);
    body(rank);
    if (control.rank() == 0 && rank.rows > 0) fmt::print(stderr, "[ cuda ] {} rows on {}\n", rank.rows, backend);
    control.exchange({});  // nobody leaves while others are in their last call
  };
  if (isolation == Isolation::threads) run_ranks(world, life);
  else run_rank_processes(world, life);
}

void run_gpu_ranks_without_group(int world, const std::function<void(GpuRank&)>& body) {
  run_ranks(world, [&](Group& control) {
    GpuRank rank(control, "");
    body(rank);
  });
}

void run_and_check_op(GpuRank& rank, Group& group, CollectiveCall call, const Shape& shape, std::uint64_t seed, bool in_place) {
  Device& device = *rank.device;
  const int size = group.size();
  const OpCall op = op_call(call, shape, size);
  const KernelDef* kernel = find_kernel(fmt::format("cuda_group_{}", info(call.kind).name));
  check(kernel != nullptr, "every collective has a kernel of GPUs");
  if (in_place) check(kernel->in_place_operand == 0, "the kernel works in place");
  const std::vector<const std::byte*> no_weights(1, nullptr);
  const auto prepared = kernel->prepare({.call = op, .weights = no_weights, .group = &group, .device = &device});
  Tensor out(call.dtype, shape_of(op.results[0]));
  const std::size_t in_bytes = bytes(call.dtype, element_count(shape));
  const DeviceMemory from(rank.device, std::max<std::size_t>(in_bytes, 1)), to(rank.device, std::max<std::size_t>(out.size_bytes(), 1));
  const DeviceMemory workspace(rank.device, std::max<std::size_t>(prepared->workspace_bytes(), 1));
  const std::byte* operands[] = {in_place ? to.data() : from.data()};
  std::byte* results[] = {to.data()};
  const auto work = [&] { prepared->run({operands, results, workspace.data(), *rank.stream, Deadline::after(kLimit)}); };
  std::unique_ptr<Recording> recording;
  call.dims = shape;
  for (int round = 0; round < 3; ++round) {
    std::vector<Tensor> inputs;
    for (int r = 0; r < size; ++r) inputs.push_back(random_input(call.dtype, shape, r, seed * 3 + static_cast<std::uint64_t>(round)));
    if (out.size_bytes() > 0) std::memset(out.mutable_data(), 0x5a, out.size_bytes());
    device.copy(to.data(), out.data(), out.size_bytes(), *rank.stream);
    device.copy(const_cast<std::byte*>(operands[0]), inputs[static_cast<std::size_t>(group.rank())].data(), in_bytes, *rank.stream);
    if (round == 1) recording = device.record(*rank.stream, work);
    if (recording) recording->launch(*rank.stream);
    else work();
    device.copy(out.mutable_data(), to.data(), out.size_bytes(), *rank.stream);
    rank.stream->wait(Deadline::after(kLimit));
    if (rounds_often(call, size)) check_rounded(call, group.rank(), inputs, out);
    else check_output(call, group.rank(), inputs, out);
  }
  ++rank.rows;
}

}  // namespace tandem::test
