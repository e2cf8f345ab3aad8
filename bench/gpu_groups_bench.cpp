// Collectives between the GPUs of this machine, each as one of many in a recorded graph: the slowest rank's time of one, in microseconds,
// for every way to communicate that serves these GPUs, in turn. Ranks are threads, one per GPU. A line of JSON per row.
//
//   gpu_groups_bench [RANKS] [FILTER]     FILTER: part of a row's name
//   gpu_groups_bench RANKS supervision    what counting collectives for the other ranks costs: gpu_supervision.h
//
// Inputs change from call to call. What the last call gave is compared with what it must be, element by element, on the GPU.
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "comm/gpu_group.h"
#include "comm/nccl/nccl_group.h"
#include "comm/peer/peer_group.h"
#include "comm/ranks.h"
#include "core/check.h"
#include "device/cuda/runtime.h"
#include "device/device.h"
#include "gpu/peer_kernels_cuda.h"
#include "gpu_supervision.h"
#include "ops/norm/norm_cuda.h"
#include "peers/nccl_window.h"
#include "replays.h"

namespace {

using namespace tandem;

constexpr int kCalls = 100, kInputs = 4, kRepeats = 15;
constexpr std::int64_t kLength = 4096;  // of a row
constexpr auto kLimit = std::chrono::seconds(5);

struct Memory {
  explicit Memory(std::size_t bytes) { cuda::check(cudaMalloc(&data, bytes), "cudaMalloc"); }
  ~Memory() { cudaFree(data); }
  Memory(const Memory&) = delete;
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  void* data = nullptr;
};

class Bench {
 public:
  Bench(Group& control, std::shared_ptr<Device> device, std::string filter)
      : control_(control),
        device_(std::move(device)),
        filter_(std::move(filter)),
        stream_(device_->make_stream(1)),
        handle_(cuda::handle_of(*stream_)),
        numbers_(64),
        replays_(control, *stream_, 2 * kLimit) {
    cuda::check(cudaMemset(numbers_.data, 0, 64), "clearing");
  }

  void run(GpuGroup& group, const std::string& backend) {
    for (const std::size_t bytes : {8u << 10, 64u << 10, 512u << 10, 4u << 20, 16u << 20}) {
      const auto count = static_cast<std::int64_t>(bytes / 2);
      const Memory in(bytes * kInputs), out(bytes), residual(bytes), scale(kLength * 2), y(bytes),
          all(bytes * static_cast<std::size_t>(group.size()));
      cuda::check(cudaMemset(residual.data, 0, bytes), "clearing");
      for (int i = 0; i < kInputs; ++i) fill(in.as<__nv_bfloat16>(), i, count);
      testing::fill(scale.as<__nv_bfloat16>(), kLength, 0, turn(0), handle_);
      const auto input = [&](int call) { return in.as<__nv_bfloat16>() + call % kInputs * count; };
      const Shape shape = {count};
      const auto reduce = [&](int call) {
        group.run({.kind = Collective::all_reduce,
                   .reduction = Reduction::sum,
                   .dtype = DType::bf16,
                   .dims = shape,
                   .stream = handle_,
                   .in = input(call),
                   .out = out.data,
                   .deadline = Deadline::after(kLimit)});
      };
      const auto norm = [&](const void* x, void* sum) {
        cuda::launch_norm({x, residual.data, nullptr, scale.data, nullptr, y.data, sum, count / kLength, kLength, 1.0f / kLength, 1e-5f,
                           false, DType::bf16},
                          static_cast<cuda::CudaDevice&>(*device_).multiprocessors(), handle_);
      };
      const auto is_sum = [&](const Memory& got) {
        testing::compare_sum(got.as<__nv_bfloat16>(), count, group.size(), turn((kCalls - 1) % kInputs), errors(), handle_);
      };
      time("all_reduce", bytes, backend, reduce, [&] { is_sum(out); });
      time(
          "all_reduce + norm", bytes, backend + " and a kernel", [&](int call) { reduce(call), norm(out.data, all.data); },
          [&] { is_sum(all); });
      if (auto* peers = dynamic_cast<peer::PeerGroup*>(&group)) {
        peer::ReduceAndNorm work{};
        work.residual = residual.data;
        work.scale = scale.data;
        work.y = y.data;
        work.sum = out.data;
        work.rows = count / kLength;
        work.length = kLength;
        work.epsilon = 1e-5f;
        work.dtype = DType::bf16;
        work.aligned = true;
        work.blocks = peers->blocks();
        for (const bool early : {false, true}) {
          work.early = early;
          const auto chosen = [&](int call) { work.in = input(call), peers->reduce_and_norm(work, handle_, kLimit); };
          time("all_reduce + norm", bytes, early ? "peer, one kernel, dependent launch" : "peer, one kernel", chosen, [&] { is_sum(out); });
        }
        const peer::View view = peers->view(kLimit);
        const auto at_once = [&](int call) { work.in = input(call), peer::launch_norm_at_once(view, work, handle_); };
        const auto by_parts = [&](int call) { work.in = input(call), peer::launch_norm_by_parts(view, work, handle_); };
        if (work.rows <= peer::most_rows_at_once(work, group.size()))
          time("all_reduce + norm", bytes, "peer, one kernel, at once", at_once, [&] { is_sum(out); });
        if (work.rows <= peer::most_rows_by_parts(work, group.size()))
          time("all_reduce + norm", bytes, "peer, one kernel, by parts", by_parts, [&] { is_sum(out); });
      }
      const auto gather = [&](int call) {
        group.run({.kind = Collective::all_gather,
                   .dtype = DType::bf16,
                   .dims = shape,
                   .stream = handle_,
                   .in = input(call),
                   .out = all.data,
                   .deadline = Deadline::after(kLimit)});
      };
      time("all_gather", bytes, backend, gather, [&] {
        testing::compare_gathered(all.as<__nv_bfloat16>(), count, group.size(), turn((kCalls - 1) % kInputs), errors(), handle_);
      });
    }
  }

  // The same calls by NCCL on memory that it does not know, on memory registered as contexts have it, and on its windows.
  void run_registered(nccl::NcclGroup& group, nccl::Communicator& comm) {
    for (const std::size_t bytes : {64u << 10, 1u << 20, 16u << 20}) {
      const std::size_t total = bytes * (kInputs + 1 + static_cast<std::size_t>(group.size()));
      const auto memory = std::make_shared<DeviceMemory>(device_, total);
      time_in(memory->data(), group, bytes, "nccl, not registered");
      if (const auto known = group.register_memory(memory, nullptr, Deadline::after(kLimit)))
        time_in(memory->data(), group, bytes, "nccl, registered buffers");
      const bench::NcclWindow window(control_, comm, total, Deadline::after(kLimit));
      time_in(window.data(), group, bytes, "nccl, registered windows");
    }
  }

 private:
  std::uint32_t* turn(int i) const { return numbers_.as<std::uint32_t>() + 2 + i; }
  unsigned long long* errors() const { return numbers_.as<unsigned long long>(); }
  void fill(__nv_bfloat16* in, int i, std::int64_t count) {
    const auto number = static_cast<std::uint32_t>(i + 1);
    cuda::check(cudaMemcpy(turn(i), &number, sizeof number, cudaMemcpyDefault), "copying");
    testing::fill(in + i * count, count, control_.rank(), turn(i), handle_);
  }

  // Calls whose operands lie there: inputs, what is reduced, what is gathered.
  void time_in(std::byte* memory, GpuGroup& group, std::size_t bytes, const std::string& backend) {
    const auto count = static_cast<std::int64_t>(bytes / 2);
    auto* const in = reinterpret_cast<__nv_bfloat16*>(memory);
    auto *const out = in + kInputs * count, *const all = out + count;
    for (int i = 0; i < kInputs; ++i) fill(in, i, count);
    const Shape shape = {count};
    const auto give = [&](Collective kind, __nv_bfloat16* to, int number) {
      group.run({.kind = kind,
                 .reduction = info(kind).reduces ? std::optional(Reduction::sum) : std::nullopt,
                 .dtype = DType::bf16,
                 .dims = shape,
                 .stream = handle_,
                 .in = in + number % kInputs * count,
                 .out = to,
                 .deadline = Deadline::after(kLimit)});
    };
    time(
        "registration: all_reduce", bytes, backend, [&](int number) { give(Collective::all_reduce, out, number); },
        [&] { testing::compare_sum(out, count, group.size(), turn((kCalls - 1) % kInputs), errors(), handle_); });
    time(
        "registration: all_gather", bytes, backend, [&](int number) { give(Collective::all_gather, all, number); },
        [&] { testing::compare_gathered(all, count, group.size(), turn((kCalls - 1) % kInputs), errors(), handle_); });
  }

  template <typename Call, typename Check>
  void time(const std::string& what, std::size_t bytes, const std::string& backend, const Call& call, const Check& is_right) {
    const std::string name = fmt::format("{} {} KB", what, bytes >> 10);
    if (name.find(filter_) == std::string::npos) return;
    const cudaGraphExec_t exec = replays_.record([&] { call(0); },
                                                 [&] {
                                                   for (int i = 0; i < kCalls; ++i) call(i);
                                                 });
    std::vector<float> times;
    for (int repeat = 0; repeat < kRepeats; ++repeat) times.push_back(replays_.replay(exec) / kCalls);
    cudaGraphExecDestroy(exec);
    const float slowest = replays_.slowest(times);
    is_right();
    unsigned long long wrong = 1;
    stream_->wait(Deadline::after(2 * kLimit));
    cuda::check(cudaMemcpy(&wrong, errors(), sizeof wrong, cudaMemcpyDefault), "copying");
    if (wrong != 0) fail(ErrorCode::internal, "{} by {}: {} elements are wrong", name, backend, wrong);
    if (control_.rank() == 0)
      fmt::print("{{\"name\": \"{}\", \"backend\": \"{}\", \"ranks\": {}, \"us\": {:.2f}}}\n", name, backend, control_.size(), slowest);
    std::fflush(stdout);
  }

  Group& control_;
  std::shared_ptr<Device> device_;
  std::string filter_;
  std::shared_ptr<Stream> stream_;
  cudaStream_t handle_;
  Memory numbers_;
  bench::Replays replays_;
};

// Runs `work`, or says why this machine cannot.
void run_or_refuse(Group& control, std::string_view backend, const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    if (control.rank() == 0) fmt::print("{{\"backend\": \"{}\", \"refused\": \"{}\"}}\n", backend, error.message());
  }
}

void run_rank(Group& control, const std::string& filter) {
  const auto device = open_device("cuda", control.rank());
  const OnDevice current(*device);
  Bench bench(control, device, filter);
  for (const GpuBackend& backend : gpu_backends())
    run_or_refuse(control, backend.name, [&] {
      const auto group = make_gpu_group(control, *device, {.backend = std::string(backend.name)}, nullptr);
      bench.run(*group, std::string(backend.name));
    });
  run_or_refuse(control, "nccl, registered", [&] {
    const std::shared_ptr<nccl::Communicator> comm = nccl::Communicator::create(control, Deadline::after(kRendezvousDeadline));
    nccl::NcclGroup group(control, comm);
    bench.run_registered(group, *comm);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const int gpus = tandem::cuda_device_count(), ranks = argc > 1 && std::atoi(argv[1]) > 0 ? std::atoi(argv[1]) : gpus;
  if (ranks < 2 || ranks > gpus) {
    fmt::print(stderr, "{} ranks need as many GPUs; this machine has {}\n", std::max(ranks, 2), gpus);
    return 3;
  }
  setenv("TANDEM_NCCL_REGISTER", "buffers", 1);  // where it is asked for
  try {
    const std::string filter = argc > 2 ? argv[2] : "";
    tandem::run_ranks(ranks, [&](tandem::Group& control) {
      if (filter == "supervision") tandem::bench::run_supervision(control);
      else run_rank(control, filter);
    });
  } catch (const tandem::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
