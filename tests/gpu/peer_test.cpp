// Collectives of GPUs over peer memory, against the oracle of all collectives. On a machine with one GPU its ranks share it, as threads; without
// a GPU every test is skipped and says so. TANDEM_TEST_RANKS sets the number of ranks (else the GPUs, or 3 that share one).
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "comm/oracle.h"
#include "comm/peer/peer_group.h"
#include "comm/ranks.h"
#include "core/check.h"
#include "device/cuda/runtime.h"
#include "gpu/peer_kernels_cuda.h"

namespace tandem {
namespace {

using peer::PeerGroup;
using peer::PeerOptions;

int gpu_count() {
  int count = 0;
  const bool known = cudaGetDeviceCount(&count) == cudaSuccess;
  cudaGetLastError();
  return known ? count : 0;
}

int rank_count() {
  const char* given = std::getenv("TANDEM_TEST_RANKS");
  if (given) return std::atoi(given);
  return gpu_count() > 1 ? std::min(gpu_count(), peer::kMaxRanks) : 3;
}

// Longer than any of these tests should wait for a peer, shorter than anyone wants to wait for a test.
constexpr std::chrono::seconds kPatience(10);

PeerOptions test_options() {
  PeerOptions options;
  options.share_gpu = true;
  options.limit = kPatience;
  return options;
}

class Peers : public ::testing::Test {
 protected:
  void SetUp() override {
    if (gpu_count() == 0) GTEST_SKIP() << "this machine has no GPU";
  }
};

// Memory of the current GPU.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : bytes_(bytes) { cuda::check(cudaMalloc(&data_, std::max<std::size_t>(bytes, 1) + 16), "cudaMalloc"); }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  // `offset`: of an address that is aligned to an element only.
  std::byte* at(std::size_t offset = 0) const { return static_cast<std::byte*>(data_) + offset; }
  template <typename T>
  T* as() const { return static_cast<T*>(data_); }
  void poison(cudaStream_t stream) { cuda::check(cudaMemsetAsync(data_, 0x5a, bytes_ + 16, stream), "cudaMemset"); }

 private:
  void* data_ = nullptr;
  std::size_t bytes_;
};

// A rank of a group on GPUs, with a stream.
struct Rank {
  std::shared_ptr<Device> device;
  OnDevice current;
  std::unique_ptr<GpuGroup> group;
  std::unique_ptr<Stream> stream;
  cudaStream_t handle;

  explicit Rank(Group& control, const PeerOptions& options = test_options())
      : device(open_device("cuda", control.rank())), current(*device), stream(device->make_stream(1)), handle(cuda::handle_of(*stream)) {
    std::string why;
    group = peer::make_peer_group(control, *device, Deadline::after(kRendezvousDeadline), &why, options);
    if (!group) fail(ErrorCode::unsupported, "no group over peer memory: {}", why);
  }
  PeerGroup& peers() const { return static_cast<PeerGroup&>(*group); }
  void wait() const {
    stream->wait(Deadline::after(2 * kPatience));
    group->throw_if_failed();
  }
};

// As run_and_check() of the oracle, with memory of the GPU.
void check_on_gpu(const Rank& rank, Group& group, CollectiveCall call, const Shape& shape, std::uint64_t seed, bool in_place = false, bool shifted = false) {
  std::vector<Tensor> inputs;
  for (int r = 0; r < group.size(); ++r) inputs.push_back(random_input(call.dtype, shape, r, seed));
  const Tensor& mine = inputs[static_cast<std::size_t>(group.rank())];
  call.dims = shape;
  Tensor out(call.dtype, collective_output_dims(call, group.size()));
  const std::size_t offset = shifted ? bytes(call.dtype, 1) : 0;
  Buffer from(mine.size_bytes()), to(out.size_bytes());
  to.poison(rank.handle);
  cuda::check(cudaMemcpyAsync((in_place ? to : from).at(offset), mine.data(), mine.size_bytes(), cudaMemcpyDefault, rank.handle), "copying");
  call.in = (in_place ? to : from).at(offset);
  call.out = to.at(offset);
  call.stream = rank.handle;
  group.run(call);
  rank.stream->wait(Deadline::after(2 * kPatience));
  group.throw_if_failed();
  cuda::check(cudaMemcpy(out.mutable_data(), to.at(offset), out.size_bytes(), cudaMemcpyDefault), "copying");
  check_output(call, group.rank(), inputs, out);
}

constexpr DType kReducing[] = {DType::f32, DType::f16, DType::bf16, DType::f64, DType::f8e4m3, DType::f8e5m2,
                               DType::i8,  DType::u8,  DType::i16,  DType::i32, DType::i64};
constexpr DType kMoving[] = {DType::f32, DType::bf16, DType::f8e5m2, DType::i64, DType::boolean};
constexpr Reduction kReductions[] = {Reduction::sum, Reduction::prod, Reduction::max, Reduction::min, Reduction::avg};

int every_cell(const Rank& rank, Group& group, const Shape& shape, std::uint64_t seed) {
  int cells = 0;
  for (const CollectiveInfo& row : collectives())
    for (int axis = 0; axis < static_cast<int>(shape.size()); ++axis)
      for (int concat = 0; concat < (row.kind == Collective::all_to_all ? static_cast<int>(shape.size()) : 1); ++concat) {
        CollectiveCall call = {.kind = row.kind, .axis = axis, .split_axis = axis, .concat_axis = concat, .root = axis % group.size(), .shift = 2 * axis - 3};
        for (const DType dtype : row.reduces ? std::span<const DType>(kReducing) : std::span<const DType>(kMoving)) {
          call.dtype = dtype;
          if (!row.reduces) check_on_gpu(rank, group, call, shape, ++seed), ++cells;
          for (const Reduction reduction : kReductions) {
            if (!row.reduces) break;
            call.reduction = reduction;
            check_on_gpu(rank, group, call, shape, ++seed);
            ++cells;
          }
        }
      }
  return cells;
}

TEST_F(Peers, EveryCollectiveReductionDtypeAndAxis) {
  run_ranks(rank_count(), [](Group& control) {
    const Rank rank(control);
    const std::int64_t n = control.size();
    const int cells = every_cell(rank, *rank.group, {2 * n, n, 3 * n}, 1);
    if (control.rank() == 0) std::cout << cells << " cells on " << n << " ranks, " << rank.device->name() << "\n";
  });
}

TEST_F(Peers, SubGroups) {
  if (rank_count() < 3) GTEST_SKIP() << "two ranks have no groups";
  run_ranks(rank_count(), [](Group& control) {
    const Rank rank(control);
    const std::unique_ptr<Group> part = rank.group->split({{2, 0}, {1}});
    if (part) {
      check(part->backend() == "peer", "a group of the same kind");
      for (const Collective kind : {Collective::all_reduce, Collective::all_gather, Collective::all_to_all}) {
        CollectiveCall call = {.kind = kind};
        if (kind == Collective::all_reduce) call.reduction = Reduction::sum;
        check_on_gpu(rank, *part, call, {6, 50}, 2);
      }
    }
    check_on_gpu(rank, *rank.group, {.kind = Collective::all_reduce, .reduction = Reduction::sum}, {100}, 3);
  });
}

// From a single element to what takes several launches, in memory that is aligned and in memory that is not, in place and not.
TEST_F(Peers, SizesOfAllReduce) {
  run_ranks(rank_count(), [](Group& control) {
    const Rank rank(control);
    std::uint64_t seed = 100;
    for (const DType dtype : {DType::f32, DType::bf16, DType::i32})
      for (const std::int64_t count : {1, 3, 8, 1000, 4096, 4099, 32768, 100'003, 262'144})
        for (const bool shifted : {false, true})
          for (const bool in_place : {false, true})
            check_on_gpu(rank, *rank.group, {.kind = Collective::all_reduce, .reduction = Reduction::sum, .dtype = dtype}, {count}, ++seed, in_place, shifted);
    check_on_gpu(rank, *rank.group, {.kind = Collective::all_reduce, .reduction = Reduction::avg, .dtype = DType::f16}, {5'000'001}, ++seed);
    check_on_gpu(rank, *rank.group, {.kind = Collective::all_gather, .dtype = DType::bf16}, {1'000'001}, ++seed);
    check_on_gpu(rank, *rank.group, {.kind = Collective::all_to_all, .dtype = DType::f32, .split_axis = 1, .concat_axis = 0}, {64, 24 * control.size(), 128}, ++seed);
    check_on_gpu(rank, *rank.group, {.kind = Collective::reduce_scatter, .reduction = Reduction::sum, .dtype = DType::bf16, .axis = 1}, {64, 24 * control.size(), 128}, ++seed);
  });
}

TEST_F(Peers, NotANumberArrives) {
  run_ranks(rank_count(), [](Group& control) {
    const Rank rank(control);
    for (const std::size_t bytes : {std::size_t{64}, std::size_t{8} << 20}) {
      std::vector<std::uint32_t> words(bytes / 4, control.rank() == 0 ? 0xffffffffu : 0x3f803f80u);  // what an empty word looks like, and ones
      words[1] = 0x3f803f80u;
      Buffer in(bytes), out(bytes);
      cuda::check(cudaMemcpy(in.at(), words.data(), bytes, cudaMemcpyDefault), "copying");
      const Shape shape = {static_cast<std::int64_t>(bytes / 2)};
      rank.group->run({.kind = Collective::all_reduce, .reduction = Reduction::max, .dtype = DType::bf16, .dims = shape, .stream = rank.handle, .in = in.at(), .out = out.at()});
      rank.wait();
      std::vector<std::uint16_t> got(bytes / 2);
      cuda::check(cudaMemcpy(got.data(), out.at(), bytes, cudaMemcpyDefault), "copying");
      for (std::size_t i = 0; i < got.size(); ++i)
        if (i == 2 || i == 3) check(got[i] == 0x3f80, "a number");
        else check((got[i] & 0x7fff) > 0x7f80, "not a number");
    }
  });
}

struct NormCase {
  DType dtype;
  std::int64_t rows, length;
  bool centers, offset;
};

// What reduce_and_norm() must give, in double, with the sums rounded where the op has them.
void check_norm(const NormCase& c, const std::vector<Tensor>& x, const Tensor& residual, const Tensor& offset, const Tensor& scale, const Tensor& bias, const Tensor& sum,
                const Tensor& y) {
  const double unit = c.dtype == DType::f32 ? 0x1p-23 : c.dtype == DType::f16 ? 0x1p-10 : 0x1p-7;
  for (std::int64_t row = 0; row < c.rows; ++row) {
    double mean = 0, variance = 0;
    const auto at = [&](std::int64_t i) { return row * c.length + i; };
    for (std::int64_t i = 0; i < c.length; ++i) {
      double reduced = 0, magnitude = 0;
      for (const Tensor& of_rank : x) reduced += of_rank.at(at(i)), magnitude += std::fabs(of_rank.at(at(i)));
      const double wanted = reduced + (c.offset ? offset.at(i) : 0) + residual.at(at(i));
      check(std::fabs(sum.at(at(i)) - wanted) <= 2 * unit * (magnitude + 4), fmt::format("sum {} of row {} is {}, wanted {}", i, row, sum.at(at(i)), wanted));
      mean += sum.at(at(i)) / static_cast<double>(c.length);
    }
    if (!c.centers) mean = 0;
    for (std::int64_t i = 0; i < c.length; ++i) variance += (sum.at(at(i)) - mean) * (sum.at(at(i)) - mean) / static_cast<double>(c.length);
    for (std::int64_t i = 0; i < c.length; ++i) {
      const double wanted = (sum.at(at(i)) - mean) / std::sqrt(variance + 1e-5) * scale.at(i) + (c.centers ? bias.at(i) : 0);
      check(std::fabs(y.at(at(i)) - wanted) <= unit * (std::fabs(wanted) + 0.01) + (c.dtype == DType::f32 ? 2e-5 : 0), fmt::format("norm {} of row {} is {}, wanted {}", i, row, y.at(at(i)), wanted));
    }
  }
}

TEST_F(Peers, AllReduceWithResidualAndNorm) {
  run_ranks(rank_count(), [](Group& control) {
    const Rank rank(control);
    std::uint64_t seed = 500;
    int cases = 0;
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
      for (const auto& [rows, length] : {std::pair<std::int64_t, std::int64_t>{1, 8}, {1, 4096}, {3, 104}, {5, 4096}, {64, 4096}, {130, 1000}, {300, 512}})
        for (const bool centers : {false, true})
          for (const bool shifted : {false, true}) {
            const NormCase c = {dtype, rows, length, centers, shifted};
            std::vector<Tensor> x;
            for (int r = 0; r < control.size(); ++r) x.push_back(random_input(dtype, {rows, length}, r, ++seed));
            const Tensor residual = random_input(dtype, {rows, length}, 0, ++seed), offset = random_input(dtype, {length}, 0, ++seed);
            const Tensor scale = random_input(dtype, {length}, 0, ++seed), bias = random_input(dtype, {length}, 0, ++seed);
            std::vector<std::unique_ptr<Buffer>> memory;
            const auto on_gpu = [&](const Tensor& tensor) {
              memory.push_back(std::make_unique<Buffer>(tensor.size_bytes()));
              cuda::check(cudaMemcpy(memory.back()->at(), tensor.data(), tensor.size_bytes(), cudaMemcpyDefault), "copying");
              return memory.back()->at();
            };
            Tensor sum(dtype, {rows, length}), y(dtype, {rows, length});
            Buffer sums(sum.size_bytes()), ys(y.size_bytes());
            sums.poison(rank.handle);
            ys.poison(rank.handle);
            peer::ReduceAndNorm work{};
            work.in = on_gpu(x[static_cast<std::size_t>(control.rank())]);
            work.residual = on_gpu(residual);
            if (c.offset) work.offset = on_gpu(offset);
            work.scale = on_gpu(scale);
            if (centers) work.bias = on_gpu(bias);
            work.y = ys.at();
            work.sum = sums.at();
            work.rows = rows;
            work.length = length;
            work.epsilon = 1e-5f;
            work.centers = centers;
            work.dtype = dtype;
            work.blocks = rank.peers().blocks();
            if (!peer::can_reduce_and_norm(work, control.size())) continue;
            rank.peers().reduce_and_norm(work, rank.handle, kPatience);
            rank.wait();
            cuda::check(cudaMemcpy(sum.mutable_data(), sums.at(), sum.size_bytes(), cudaMemcpyDefault), "copying");
            cuda::check(cudaMemcpy(y.mutable_data(), ys.at(), y.size_bytes(), cudaMemcpyDefault), "copying");
            check_norm(c, x, residual, offset, scale, bias, sum, y);
            ++cases;
          }
    check(cases > 40, "most cases fit into one launch");
    if (control.rank() == 0) std::cout << cases << " cases\n";
  });
}

// The same bits on all ranks, where the sum depends on the order.
TEST_F(Peers, EqualBitsOnAllRanks) {
  run_ranks(rank_count(), [](Group& control) {
    const Rank rank(control);
    for (const std::int64_t count : {1000, 50'000, 3'000'000}) {
      const Shape shape = {count};
      const Tensor mine = random_input(DType::f32, shape, control.rank(), 5);
      Buffer in(mine.size_bytes()), out(mine.size_bytes());
      cuda::check(cudaMemcpy(in.at(), mine.data(), mine.size_bytes(), cudaMemcpyDefault), "copying");
      rank.group->run({.kind = Collective::all_reduce, .reduction = Reduction::sum, .dims = shape, .stream = rank.handle, .in = in.at(), .out = out.at()});
      rank.wait();
      std::vector<std::byte> got(mine.size_bytes());
      cuda::check(cudaMemcpy(got.data(), out.at(), got.size(), cudaMemcpyDefault), "copying");
      for (const auto& theirs : control.exchange(got)) check(theirs == got, "equal bits on all ranks");
    }
  });
}

// Calls of several kinds and sizes with inputs that change from turn to turn, pauses between them, everything checked on the GPU.
class Soak {
 public:
  explicit Soak(const Rank& rank) : rank_(rank), in_(kMost), out_(kMost), gathered_(kMost * static_cast<std::size_t>(peer::kMaxRanks)), counters_(16) {
    cuda::check(cudaMemset(counters_.at(), 0, 16), "clearing");
    cuda::check(cudaDeviceSynchronize(), "clearing");
    require_that_errors_count();
  }
  template <typename T>
  void reduce(std::int64_t count, DType dtype) {
    begin<T>(count, out_);
    const Shape shape = {count};
    rank_.group->run({.kind = Collective::all_reduce, .reduction = Reduction::sum, .dtype = dtype, .dims = shape, .stream = rank_.handle, .in = in_.at(), .out = out_.at()});
    testing::compare_sum(out_.as<T>(), count, rank_.group->size(), turn(), errors(), rank_.handle);
  }
  template <typename T>
  void gather(std::int64_t count, DType dtype) {
    begin<T>(count, gathered_);
    const Shape shape = {count};
    rank_.group->run({.kind = Collective::all_gather, .dtype = dtype, .dims = shape, .stream = rank_.handle, .in = in_.at(), .out = gathered_.at()});
    testing::compare_gathered(gathered_.as<T>(), count, rank_.group->size(), turn(), errors(), rank_.handle);
  }
  // An odd number of calls that use different lanes.
  void first() {
    reduce<__nv_bfloat16>(4096, DType::bf16);
    reduce<float>(4, DType::f32);
    gather<float>(3000, DType::f32);
  }
  void second() {
    reduce<__nv_bfloat16>(262'144, DType::bf16);
    reduce<std::int32_t>(777, DType::i32);
    reduce<__nv_bfloat16>(40'000, DType::bf16);
    gather<__nv_bfloat16>(100'000, DType::bf16);
    reduce<float>(131'072, DType::f32);
  }
  cudaGraphExec_t record(void (Soak::*work)()) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    cuda::check(cudaStreamBeginCapture(rank_.handle, cudaStreamCaptureModeThreadLocal), "recording");
    (this->*work)();
    cuda::check(cudaStreamEndCapture(rank_.handle, &graph), "recording");
    cuda::check(cudaGraphInstantiate(&exec, graph, 0), "recording");
    cudaGraphDestroy(graph);
    return exec;
  }
  void finish() {
    rank_.wait();
    unsigned long long errors = 1;
    std::uint32_t turns = 0;
    cuda::check(cudaMemcpy(&errors, this->errors(), sizeof errors, cudaMemcpyDefault), "copying");
    cuda::check(cudaMemcpy(&turns, turn(), sizeof turns, cudaMemcpyDefault), "copying");
    check(turns > 0, "calls were made");
    if (errors != 0) fail(ErrorCode::internal, "{} elements of {} calls are wrong", errors, turns);
    if (rank_.group->rank() == 0) std::cout << turns << " calls checked\n";
  }

 private:
  static constexpr std::size_t kMost = 1 << 20;
  // What was never written is counted as wrong.
  void require_that_errors_count() {
    out_.poison(rank_.handle);
    testing::compare_sum(out_.as<float>(), 1000, rank_.group->size(), turn(), errors(), rank_.handle);
    rank_.wait();
    unsigned long long counted = 0;
    cuda::check(cudaMemcpy(&counted, errors(), sizeof counted, cudaMemcpyDefault), "copying");
    check(counted == 1000, "poison is wrong");
    cuda::check(cudaMemset(counters_.at(), 0, 16), "clearing");
    cuda::check(cudaDeviceSynchronize(), "clearing");
  }
  template <typename T>
  void begin(std::int64_t count, Buffer& out) {
    testing::next_turn(turn(), rank_.handle);
    testing::fill(in_.as<T>(), count, rank_.group->rank(), turn(), rank_.handle);
    out.poison(rank_.handle);
    testing::pause(rank_.group->rank(), turn(), 200'000, rank_.handle);
  }
  std::uint32_t* turn() { return counters_.as<std::uint32_t>(); }
  unsigned long long* errors() { return counters_.as<unsigned long long>() + 1; }

  const Rank& rank_;
  Buffer in_, out_, gathered_, counters_;
};

void soak(Group& control, int rounds) {
  const Rank rank(control);
  Soak soak(rank);
  soak.first();
  soak.second();
  rank.wait();
  cudaGraphExec_t graphs[] = {soak.record(&Soak::first), soak.record(&Soak::second)};
  for (int round = 0; round < rounds; ++round) {
    cuda::check(cudaGraphLaunch(graphs[0], rank.handle), "replaying");
    if (round % 3 != 0) cuda::check(cudaGraphLaunch(graphs[1], rank.handle), "replaying");
    if (round % 5 == 0) soak.first();
    if (round % 7 == 0) soak.reduce<float>(1 + round * 13 % 20'000, DType::f32);
    if (round % 64 == 63) rank.wait();
  }
  soak.finish();
  for (cudaGraphExec_t graph : graphs) cudaGraphExecDestroy(graph);
}

TEST_F(Peers, TwoGraphsAndEagerCallsAlternate) {
  run_ranks(rank_count(), [](Group& control) { soak(control, 200); });
}

TEST_F(Peers, TenThousandReplays) {
  run_ranks(rank_count(), [](Group& control) { soak(control, 6000); });
}

TEST_F(Peers, ARankThatNeverCallsIsNamed) {
  const int n = rank_count();
  try {
    run_ranks(n, [&](Group& control) {
      const Rank rank(control);
      const Shape shape = {1000};
      Buffer data(4000);
      const auto call = [&] {
        rank.group->run({.kind = Collective::all_reduce, .reduction = Reduction::sum, .dims = shape, .stream = rank.handle, .in = data.at(), .out = data.at(),
                         .deadline = Deadline::after(std::chrono::seconds(1))});
      };
      call();
      rank.wait();
      if (control.rank() == 1) {  // it does nothing, but lives
        for (int i = 0; i < 500 && !rank.peers().has_failed(); ++i) usleep(10'000);
        rank.group->throw_if_failed();
        return;
      }
      const std::int64_t start = monotonic_ns();
      call();
      rank.stream->wait(Deadline::after(kPatience));
      check(monotonic_ns() - start < 4'000'000'000, "out soon after the deadline");
      rank.group->throw_if_failed();
    });
    FAIL() << "nobody noticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::timeout) << error.what();
    EXPECT_EQ(error.rank(), 1) << error.what();
    std::cout << error.what() << "\n";
  }
}

TEST_F(Peers, AnAbortEndsKernelsThatWait) {
  std::atomic<std::int64_t> aborted_at{0};
  std::atomic<int> ended{0};
  try {
    run_ranks(rank_count(), [&](Group& control) {
      const Rank rank(control);
      Buffer data(4 << 20);
      const Shape shape = {1 << 20};
      if (control.rank() == 0) {
        usleep(200'000);
        aborted_at = monotonic_ns();
        rank.group->abort("the test wants it");
        return;
      }
      const auto call = [&] { rank.group->run({.kind = Collective::all_reduce, .reduction = Reduction::sum, .dims = shape, .stream = rank.handle, .in = data.at(), .out = data.at()}); };
      call();
      rank.stream->wait(Deadline::after(kPatience));
      check(aborted_at != 0 && monotonic_ns() - aborted_at < 500'000'000, "out soon after the abort");
      ++ended;
      call();  // says why
    });
    FAIL() << "nobody noticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::aborted) << error.what();
    EXPECT_NE(error.message().find("the test wants it"), std::string::npos) << error.what();
  }
  EXPECT_EQ(ended, rank_count() - 1);
}

TEST_F(Peers, TwoRanksOnOneGpuAreRefused) {
  run_ranks(2, [](Group& control) {
    const auto device = open_device("cuda", 0);
    const OnDevice current(*device);
    std::string why;
    check(peer::make_peer_group(control, *device, Deadline::after(kRendezvousDeadline), &why) == nullptr, "no group");
    check(why.find("ranks 0 and 1 share one GPU") != std::string::npos, why);
  });
}

// Ranks as processes: this program again, with one test that is a rank.
constexpr const char* kChild = "TANDEM_TEST_PEER_CHILD";

std::vector<pid_t> start_children(const std::string& what, bool one_gpu_each) {
  std::vector<pid_t> pids;
  for (int r = 0; r < rank_count(); ++r) {
    const pid_t pid = fork();
    if (pid != 0) {
      pids.push_back(pid);
      continue;
    }
    const std::string gpu = std::to_string(r % std::max(gpu_count(), 1));
    setenv(kChild, what.c_str(), 1);
    setenv("RANK", std::to_string(r).c_str(), 1);
    setenv("WORLD_SIZE", std::to_string(rank_count()).c_str(), 1);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    setenv("MASTER_PORT", std::to_string(20000 + getppid() % 20000).c_str(), 1);
    if (one_gpu_each) setenv("CUDA_VISIBLE_DEVICES", gpu.c_str(), 1);
    execl("/proc/self/exe", "peer_test", "--gtest_filter=PeerChild.IsARank", static_cast<char*>(nullptr));
    _exit(127);
  }
  return pids;
}

// Exit codes; 255 for one that had to be killed.
std::vector<int> wait_for(const std::vector<pid_t>& pids, std::chrono::seconds limit) {
  const Deadline deadline = Deadline::after(limit);
  std::vector<int> codes;
  for (const pid_t pid : pids) {
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
      if (deadline.expired()) kill(pid, SIGKILL);
      usleep(10'000);
    }
    codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : 255);
  }
  return codes;
}

TEST(PeerChild, IsARank) {
  const char* what = std::getenv(kChild);
  if (!what) GTEST_SKIP() << "it is started by other tests";
  const std::unique_ptr<Group> control = Group::from_env();
  if (what == std::string("cells")) {
    const Rank rank(*control);
    const std::int64_t n = control->size();
    every_cell(rank, *rank.group, {n, 2 * n}, 7);
  } else if (what == std::string("soak")) {
    soak(*control, gpu_count() >= control->size() || std::getenv("CUDA_VISIBLE_DEVICES") ? 500 : 5);
  } else if (what == std::string("killed")) {
    const Rank rank(*control);
    const Shape shape = {1000};
    Buffer data(4000);
    try {
      for (int i = 0; i < 1'000'000; ++i) {
        rank.group->run({.kind = Collective::all_reduce, .reduction = Reduction::sum, .dims = shape, .stream = rank.handle, .in = data.at(), .out = data.at()});
        rank.wait();
        if (i == 20 && control->rank() == 1) kill(getpid(), SIGKILL);
      }
      FAIL() << "nobody noticed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::rank_failed) << error.what();
      EXPECT_EQ(error.rank(), 1) << error.what();
    }
  }
}

TEST_F(Peers, Processes) {
  for (const bool one_gpu_each : {false, true})
    for (const char* what : {"cells", "soak"})
      for (const int code : wait_for(start_children(what, one_gpu_each), std::chrono::seconds(120))) EXPECT_EQ(code, 0) << what << (one_gpu_each ? ", each sees one GPU" : "");
}

TEST_F(Peers, AProcessThatIsKilledIsNamed) {
  const std::int64_t start = monotonic_ns();
  const std::vector<int> codes = wait_for(start_children("killed", false), std::chrono::seconds(60));
  for (std::size_t r = 0; r < codes.size(); ++r) EXPECT_EQ(codes[r], r == 1 ? 255 : 0) << "rank " << r;
  std::cout << static_cast<double>(monotonic_ns() - start) * 1e-9 << " s from start to end\n";
}

}  // namespace
}  // namespace tandem
