#include "gpu_supervision.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>

#include "comm/nccl/api.h"
#include "comm/nccl/nccl_group.h"
#include "comm/peer/peer_group.h"
#include "comm/run_count.h"
#include "core/check.h"
#include "device/cuda/runtime.h"
#include "device/device.h"
#include "gpu/peer_kernels_cuda.h"
#include "ops/kernel.h"
#include "ops/ops.h"
#include "replays.h"

namespace tandem::bench {
namespace {

constexpr int kCalls = 192, kChain = 64, kTurns = 101;
constexpr std::int64_t kWidth = 4096;  // of a row, and of the product's square weight
constexpr auto kLimit = std::chrono::seconds(5);

// An all-reduce of that many bf16 from `in` to `out`.
using Reduce = std::function<void(const __nv_bfloat16* in, __nv_bfloat16* out, std::int64_t count)>;

// [rows, kWidth] by a weight, as engines do it.
class Product {
 public:
  Product(const std::shared_ptr<Device>& device, std::int64_t rows)
      : weight_(device, kWidth * kWidth * 2), out_(device, static_cast<std::size_t>(rows * kWidth * 2)) {
    cuda::check(cudaMemset(weight_.data(), 0, kWidth * kWidth * 2), "clearing");
    call_.op = all_ops().find("MatMul");
    call_.attributes = Attributes(&call_.op->fields);
    for (const Shape& shape : {Shape{rows, kWidth}, Shape{kWidth, kWidth}}) call_.operands.emplace_back(Type{DType::bf16, dims_of(shape)});
    call_.results = call_.op->infer(call_);
    const std::vector<const std::byte*> weights(2, nullptr);
    for (const char* name : {"cublaslt_matmul", "cuda_matmul"}) {
      if (prepared_ || refusal(*find_kernel(name), call_)) continue;
      prepared_ = find_kernel(name)->prepare({.call = call_, .weights = weights, .device = device.get()});
    }
    check(prepared_ != nullptr, "some kernel takes a product");
    workspace_ = DeviceMemory(device, std::max<std::size_t>(prepared_->workspace_bytes(), 1));
  }
  void run(const __nv_bfloat16* in, Stream& stream) const {
    const std::vector<const std::byte*> operands = {reinterpret_cast<const std::byte*>(in), weight_.data()};
    const std::vector<std::byte*> results = {out_.data()};
    prepared_->run({operands, results, workspace_.data(), stream, Deadline::after(kLimit)});
  }

 private:
  static std::vector<Dim> dims_of(const Shape& shape) { return {shape.begin(), shape.end()}; }

  OpCall call_;
  DeviceMemory weight_, out_, workspace_;
  std::unique_ptr<PreparedKernel> prepared_;
};

class Supervision {
 public:
  Supervision(Group& control, std::shared_ptr<Device> device)
      : control_(control),
        device_(std::move(device)),
        stream_(device_->make_stream(1)),
        handle_(cuda::handle_of(*stream_)),
        in_(device_, kMost * 2),
        out_(device_, kMost * 2),
        numbers_(device_, 16),
        product_(device_, kChained / kWidth),
        replays_(control, *stream_, 2 * kLimit) {
    const std::uint32_t turn = 1;
    cuda::check(cudaMemset(numbers_.data(), 0, 16), "clearing");
    cuda::check(cudaMemcpy(numbers_.data() + 8, &turn, sizeof turn, cudaMemcpyDefault), "copying");
    testing::fill(in(), kMost, control.rank(), this->turn(), handle_);
  }

  void run(const std::string& backend, const Reduce& with, const Reduce& without) {
    for (const std::int64_t kilobytes : {8, 64, 1024}) {
      const std::int64_t count = kilobytes * 512;
      const auto calls = [&](const Reduce& reduce) {
        for (int i = 0; i < kCalls; ++i) reduce(in(), out(), count);
      };
      row(
          fmt::format("{} KB by {}", kilobytes, backend), kCalls, count, [&] { calls(with); }, [&] { calls(without); });
    }
    const auto chain = [&](const Reduce& reduce) {
      for (int i = 0; i < kChain; ++i) reduce(in(), out(), kChained), product_.run(out(), *stream_);
    };
    row(
        fmt::format("chain of {}, {} KB and a product by {}", kChain, kChained * 2 >> 10, backend), kChain, kChained, [&] { chain(with); },
        [&] { chain(without); });
  }

  cudaStream_t handle() const { return handle_; }

 private:
  static constexpr std::int64_t kMost = 1 << 19, kChained = 32 << 10;  // elements

  __nv_bfloat16* in() const { return reinterpret_cast<__nv_bfloat16*>(in_.data()); }
  __nv_bfloat16* out() const { return reinterpret_cast<__nv_bfloat16*>(out_.data()); }
  unsigned long long* errors() const { return reinterpret_cast<unsigned long long*>(numbers_.data()); }
  const std::uint32_t* turn() const { return reinterpret_cast<const std::uint32_t*>(numbers_.data() + 8); }

  void expect_sum(const std::string& name, std::int64_t count) const {
    testing::compare_sum(out(), count, control_.size(), turn(), errors(), handle_);
    stream_->wait(Deadline::after(2 * kLimit));
    unsigned long long wrong = 1;
    cuda::check(cudaMemcpy(&wrong, errors(), sizeof wrong, cudaMemcpyDefault), "copying");
    if (wrong != 0) fail(ErrorCode::internal, "supervision {}: {} elements are wrong", name, wrong);
  }

  void row(const std::string& name, int calls, std::int64_t count, const std::function<void()>& with,
           const std::function<void()>& without) {
    const auto as_a_run = [&] {
      const RunCount counted;
      with();
    };
    cudaGraphExec_t graphs[] = {replays_.record(as_a_run, as_a_run), replays_.record(without, without)};
    std::vector<float> times[2];
    for (int i = 0; i < 2 * kTurns; ++i) {
      const int which = (i + i / 2) % 2;  // each goes first every second time
      if (i < 2) cuda::check(cudaMemsetAsync(out(), 0x5a, static_cast<std::size_t>(count) * 2, handle_), "what must be overwritten");
      times[which].push_back(replays_.replay(graphs[which]));
      if (i < 2) expect_sum(name, count);
    }
    const float us = replays_.slowest(times[0]) / static_cast<float>(calls), bare = replays_.slowest(times[1]) / static_cast<float>(calls);
    if (control_.rank() == 0)
      fmt::print("{{\"name\": \"supervision {}\", \"ranks\": {}, \"us\": {:.3f}, \"without_us\": {:.3f}, \"cost\": {:.4f}}}\n", name,
                 control_.size(), us, bare, us / bare);
    std::fflush(stdout);
    for (cudaGraphExec_t graph : graphs) cudaGraphExecDestroy(graph);
  }

  Group& control_;
  std::shared_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  cudaStream_t handle_;
  DeviceMemory in_, out_, numbers_;
  Product product_;
  Replays replays_;
};

void over_peer_memory(Group& control, Device& device, Supervision& bench) {
  std::string why;
  const auto group = peer::make_peer_group(control, device, Deadline::after(kRendezvousDeadline), &why);
  if (!group) {
    if (control.rank() == 0) fmt::print("{{\"backend\": \"peer\", \"refused\": \"{}\"}}\n", why);
    return;
  }
  const auto& peers = static_cast<const peer::PeerGroup&>(*group);
  const peer::View counting = peers.view(kLimit);
  check(counting.begun != nullptr, "ranks of one host count what they begin");
  peer::View bare = counting;
  bare.begun = bare.begun_seen = nullptr;
  const auto by = [&](const peer::View& view) -> Reduce {
    return [&](const __nv_bfloat16* in, __nv_bfloat16* out, std::int64_t count) {
      const peer::ReduceWords work = {{in, out, count, true}, DType::bf16, peer::Fold::sum, peers.blocks()};
      if (count <= peer::most_at_once(work.dtype, view.size, work.blocks)) peer::launch_at_once(view, work, bench.handle());
      else peer::launch_by_parts(view, work, bench.handle());
    };
  };
  bench.run("peer", by(counting), by(bare));
}

void over_nccl(Group& control, Supervision& bench) {
  if (const auto why = nccl::missing()) {
    if (control.rank() == 0) fmt::print("{{\"backend\": \"nccl\", \"refused\": \"{}\"}}\n", *why);
    return;
  }
  std::vector<int> everyone(static_cast<std::size_t>(control.size()));
  std::iota(everyone.begin(), everyone.end(), 0);
  const std::shared_ptr<nccl::Communicator> comm = nccl::Communicator::create(control, Deadline::after(kRendezvousDeadline));
  nccl::NcclGroup counting(control, comm), bare(control.split({everyone}), nullptr, comm);
  const auto by = [&](GpuGroup& group) -> Reduce {
    return [&](const __nv_bfloat16* in, __nv_bfloat16* out, std::int64_t count) {
      const Shape shape = {count};
      group.run({.kind = Collective::all_reduce,
                 .reduction = Reduction::sum,
                 .dtype = DType::bf16,
                 .dims = shape,
                 .stream = bench.handle(),
                 .in = in,
                 .out = out,
                 .deadline = Deadline::after(kLimit)});
    };
  };
  bench.run("nccl", by(counting), by(bare));
}

}  // namespace

void run_supervision(Group& control) {
  const auto device = open_device("cuda", control.rank());
  const OnDevice current(*device);
  Supervision bench(control, device);
  over_peer_memory(control, *device, bench);
  over_nccl(control, bench);
}

}  // namespace tandem::bench
