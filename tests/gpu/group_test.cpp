// Collectives of GPUs: every one × reduction × dtype × axis × group, given to a stream and recorded, ranks as threads and as processes.
// A rank needs a GPU of its own but where processes go through the host: with fewer a test is skipped and says so.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "comm/oracle.h"
#include "core/check.h"
#include "gpu/gpu_ranks.h"

namespace tandem::test {
namespace {

constexpr DType kReducing[] = {DType::f32, DType::f16, DType::bf16, DType::f64,    DType::i8,    DType::u8,
                               DType::i32, DType::i64, DType::i16,  DType::f8e4m3, DType::f8e5m2};
constexpr DType kMoving[] = {DType::f32, DType::f16, DType::bf16,    DType::i8,     DType::u8,
                             DType::i32, DType::i64, DType::boolean, DType::f8e4m3, DType::f8e5m2};
constexpr Reduction kReductions[] = {Reduction::sum, Reduction::prod, Reduction::max, Reduction::min, Reduction::avg};

struct Setting {
  std::string backend;
  Isolation isolation;
  int ranks;
};

class GpuGroups : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    const Setting& s = GetParam();
    const int count = gpu_count(), needed = s.backend == "host" && s.isolation == Isolation::processes ? 1 : s.ranks;
    if (count < needed) GTEST_SKIP() << needed << " GPUs are needed, this machine has " << count;
  }
  void run(const std::function<void(GpuRank&)>& body) const {
    run_gpu_ranks(GetParam().isolation, GetParam().ranks, GetParam().backend, body);
  }
};

std::string name_of(const testing::TestParamInfo<Setting>& info) {
  return fmt::format("{}_{}_{}", info.param.backend, info.param.isolation == Isolation::threads ? "threads" : "processes",
                     info.param.ranks);
}

std::vector<Setting> settings_of(const std::string& backend) {
  std::vector<Setting> all = {{backend, Isolation::processes, 1}};
  for (const int ranks : {2, 4})
    for (const Isolation isolation : {Isolation::threads, Isolation::processes}) all.push_back({backend, isolation, ranks});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Nccl, GpuGroups, testing::ValuesIn(settings_of("nccl")), name_of);
INSTANTIATE_TEST_SUITE_P(Peer, GpuGroups, testing::ValuesIn(settings_of("peer")), name_of);
INSTANTIATE_TEST_SUITE_P(Host, GpuGroups, testing::ValuesIn(settings_of("host")), name_of);

void every_reduction(GpuRank& rank, Group& group, const Shape& shape, Collective kind, int axes) {
  std::uint64_t seed = 1;
  for (int axis = 0; axis < axes; ++axis)
    for (const DType dtype : kReducing)
      for (const Reduction reduction : kReductions)
        run_and_check_op(rank, group, {.kind = kind, .reduction = reduction, .dtype = dtype, .axis = axis, .root = axis % group.size()},
                         shape, ++seed);
}

std::size_t free_bytes(GpuRank& rank) {
  rank.stream->wait(Deadline::after(std::chrono::seconds(20)));
  std::size_t free = 0, total = 0;
  check(cudaDeviceSynchronize() == cudaSuccess && cudaMemGetInfo(&free, &total) == cudaSuccess, "the GPU tells its memory");
  return free;
}

void reduce_in_place(GpuRank& rank, std::byte* memory, std::int64_t count) {
  const Shape dims = {count};
  rank.group->run({.kind = Collective::all_reduce,
                   .reduction = Reduction::sum,
                   .dims = dims,
                   .stream = rank.stream->native(),
                   .in = memory,
                   .out = memory});
  rank.stream->wait(Deadline::after(std::chrono::seconds(20)));
}

// The result of a call whose operands lie in `memory`; at once, or by the second launch of a recording.
std::vector<std::byte> result_in(GpuRank& rank, const std::shared_ptr<DeviceMemory>& memory, bool recorded, CollectiveCall call,
                                 const Tensor& input, std::size_t out_bytes) {
  call.stream = rank.stream->native();
  call.in = memory->data();
  std::byte* const out = memory->data() + aligned_size(input.size_bytes());
  call.out = out;
  rank.device->copy(memory->data(), input.data(), input.size_bytes(), *rank.stream);
  rank.device->clear(out, out_bytes, *rank.stream);
  rank.group->run(call);
  if (recorded) {
    const auto recording = rank.device->record(*rank.stream, [&] { rank.group->run(call); });
    for (int launch = 0; launch < 2; ++launch) {
      rank.device->clear(out, out_bytes, *rank.stream);
      recording->launch(*rank.stream);
    }
    rank.stream->wait(Deadline::after(std::chrono::seconds(20)));
  }
  std::vector<std::byte> result(out_bytes);
  rank.device->copy(result.data(), out, out_bytes, *rank.stream);
  rank.stream->wait(Deadline::after(std::chrono::seconds(20)));
  return result;
}

void compare_registered(GpuRank& rank, Collective kind, DType dtype, const Shape& shape) {
  CollectiveCall call{.kind = kind, .dtype = dtype, .dims = shape};
  if (info(kind).reduces) call.reduction = Reduction::sum;
  const Tensor input = random_input(dtype, shape, rank.group->rank(), 77);
  const std::size_t out_bytes = bytes(dtype, element_count(collective_output_dims(call, rank.group->size())));
  const std::size_t total = aligned_size(input.size_bytes()) + aligned_size(out_bytes);
  const auto memory = std::make_shared<DeviceMemory>(rank.device, total);
  const auto wanted = result_in(rank, memory, false, call, input, out_bytes);
  const auto known = rank.group->register_memory(memory, nullptr, Deadline::after(std::chrono::seconds(20)));
  check(known != nullptr, "NCCL registers it");
  for (const bool recorded : {false, true})
    check(result_in(rank, memory, recorded, call, input, out_bytes) == wanted, to_string(call) + " in registered memory");
}

void every_move(GpuRank& rank, const Shape& shape) {
  const int n = rank.all().size();
  std::uint64_t seed = 1000;
  for (const DType dtype : kMoving)
    for (int axis = 0; axis < 3; ++axis) {
      for (const Collective kind :
           {Collective::all_gather, Collective::broadcast, Collective::gather, Collective::scatter, Collective::shift})
        run_and_check_op(rank, rank.all(), {.kind = kind, .dtype = dtype, .axis = axis, .root = axis % n, .shift = 2 * axis - 3}, shape,
                         ++seed);
      for (int concat = 0; concat < 3; ++concat)
        run_and_check_op(rank, rank.all(), {.kind = Collective::all_to_all, .dtype = dtype, .split_axis = axis, .concat_axis = concat},
                         shape, ++seed);
    }
}

// A start of ranks takes longer than most of what they then do, so each test is of many rows.
TEST_P(GpuGroups, ReductionsToEveryRootAlongEveryAxis) {
  const std::int64_t n = GetParam().ranks;
  run([n](GpuRank& rank) {
    every_reduction(rank, rank.all(), {3, 5, 7}, Collective::all_reduce, 1);
    every_reduction(rank, rank.all(), {3, 5, 7}, Collective::reduce, 2);
    every_reduction(rank, rank.all(), {2 * n, n, 3 * n}, Collective::reduce_scatter, 3);
  });
}

TEST_P(GpuGroups, MovesAlongEveryAxisAndBetweenEveryTwo) {
  const std::int64_t n = GetParam().ranks;
  run([n](GpuRank& rank) { every_move(rank, {2 * n, n, 3 * n}); });
}

TEST_P(GpuGroups, InPlaceLargeAndEmpty) {
  const std::int64_t n = GetParam().ranks;
  run([n](GpuRank& rank) {
    std::uint64_t seed = 3000;
    for (const Shape& shape : {Shape{1}, Shape{4097}, Shape{n * 300'007}, Shape{0, 4 * n}})
      for (const Collective kind : {Collective::all_reduce, Collective::reduce, Collective::broadcast}) {
        CollectiveCall call{.kind = kind, .root = static_cast<int>(n) - 1};
        if (info(kind).reduces) call.reduction = Reduction::sum;
        run_and_check_op(rank, rank.all(), call, shape, ++seed, true);
      }
    for (const Collective kind : {Collective::all_gather, Collective::all_to_all, Collective::shift})
      for (const Shape& shape : {Shape{n * 300'007}, Shape{4 * n, 0}}) run_and_check_op(rank, rank.all(), {.kind = kind}, shape, ++seed);
  });
}

// Rows that one kernel takes over peer memory, and ones of which it takes none: too long, or of no whole words.
TEST_P(GpuGroups, AllReduceWithResidualAndNorm) {
  run([](GpuRank& rank) {
    std::uint64_t seed = 4000;
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
      for (const auto& [rows, length] :
           {std::pair<std::int64_t, std::int64_t>{1, 4096}, {7, 104}, {33, 31}, {2, 9000}, {600, 1024}, {0, 8}})
        for (const bool centers : {false, true}) {
          run_and_check_norm(rank, rank.all(), {dtype, rows, length, centers, centers, false, rows % 3 == 0}, ++seed);
          run_and_check_norm(rank, rank.all(), {dtype, rows, length, centers, !centers, true, false}, ++seed);
        }
    run_and_check_norm(rank, rank.all(), {DType::bf16, 1500, 2048, false, false},
                       ++seed);  // large enough for parts where there are more than two
  });
}

// What lies on the host goes on as before.
void check_calls_without_a_stream(GpuRank& rank) {
  const std::int64_t dims[] = {3};
  const float in[] = {1, 2, 3};
  float out[3] = {};
  Group& all = rank.all();
  all.run({.kind = Collective::all_reduce, .reduction = Reduction::sum, .dims = dims, .in = in, .out = out});
  check(out[2] == 3.0f * static_cast<float>(all.size()), "the sum");
  check((all.backend() != "shm") == (rank.group != nullptr) && static_cast<int>(all.exchange({}).size()) == all.size(), "the exchange");
}

// Ranks in another order, groups of one, ranks that are in none; calls for the host between those for GPUs.
TEST_P(GpuGroups, PartsOfTheRanks) {
  const int n = GetParam().ranks;
  std::vector<std::vector<std::vector<int>>> splits = {{{0}}};
  if (n > 1) splits.insert(splits.end(), {{{1, 0}}, {{0}, {1}}, {{1}}});
  if (n == 4) splits.insert(splits.end(), {{{0, 1}, {2, 3}}, {{3, 1}, {0, 2}}, {{3, 0, 1}}});
  run([&](GpuRank& rank) {
    for (const auto& lists : splits) {
      check_calls_without_a_stream(rank);
      const std::unique_ptr<Group> part = rank.all().split(lists);
      if (!part) continue;
      const std::int64_t size = part->size();
      run_and_check_op(rank, *part, {.kind = Collective::all_reduce, .reduction = Reduction::sum}, {1000}, 7);
      run_and_check_op(rank, *part, {.kind = Collective::all_gather, .axis = 1}, {3, 5}, 8);
      run_and_check_norm(rank, *part, {DType::bf16, 5, 512, true, true}, 10);
      run_and_check_op(rank, *part, {.kind = Collective::all_to_all, .split_axis = 1, .concat_axis = 0}, {3, 5 * size}, 9);
    }
  });
}

// Calls on memory that is registered give the same bits as on memory that is not, at once and recorded.
class RegisteredMemory : public testing::TestWithParam<Isolation> {
 protected:
  void SetUp() override {
    setenv("TANDEM_NCCL_REGISTER", "buffers", 1);
    if (const int count = gpu_count(); count < 2) GTEST_SKIP() << "2 GPUs are needed, this machine has " << count;
  }
  void TearDown() override { unsetenv("TANDEM_NCCL_REGISTER"); }
};
INSTANTIATE_TEST_SUITE_P(By, RegisteredMemory, testing::Values(Isolation::threads, Isolation::processes),
                         [](const auto& info) { return info.param == Isolation::threads ? "threads" : "processes"; });

TEST_P(RegisteredMemory, GivesTheSameBits) {
  run_gpu_ranks(GetParam(), 2, "nccl", [](GpuRank& rank) {
    for (const std::int64_t count : {8, 4096, 1 << 20})
      for (const DType dtype : {DType::bf16, DType::f32})
        for (const Collective kind : {Collective::all_reduce, Collective::all_gather, Collective::reduce_scatter, Collective::all_to_all})
          compare_registered(rank, kind, dtype, {count});
  });
}

TEST_P(RegisteredMemory, IsGivenBack) {
  run_gpu_ranks(GetParam(), 2, "nccl", [](GpuRank& rank) {
    constexpr std::size_t kBytes = std::size_t{32} << 20;
    std::size_t before = 0;
    for (int cycle = 0; cycle < 210; ++cycle) {
      if (cycle == 10) before = free_bytes(rank);  // what NCCL makes once has been made
      const auto memory = std::make_shared<DeviceMemory>(rank.device, kBytes);
      const auto known = rank.group->register_memory(memory, nullptr, Deadline::after(std::chrono::seconds(20)));
      check(known != nullptr, "NCCL registers it");
      reduce_in_place(rank, memory->data(), 1 << 18);
    }
    const std::size_t after = free_bytes(rank);
    check(after + kBytes > before, fmt::format("{} MiB were free before, {} are after", before >> 20, after >> 20));
  });
}

// Whichever goes first, the group or the registration; and parts of the ranks with communicators of their own.
TEST_P(RegisteredMemory, GoesInWhateverOrder) {
  run_gpu_ranks(GetParam(), 2, "nccl", [](GpuRank& rank) {
    for (const bool part_first : {true, false}) {
      const auto memory = std::make_shared<DeviceMemory>(rank.device, 4 << 20);
      std::unique_ptr<Group> part = rank.group->split({{1, 0}});
      const Deadline limit = Deadline::after(std::chrono::seconds(20));
      auto known = dynamic_cast<GpuGroup&>(*part).register_memory(memory, nullptr, limit);
      auto whole = rank.group->register_memory(memory, nullptr, limit);
      check(known && whole, "NCCL registers it");
      reduce_in_place(rank, memory->data(), 1 << 18);
      if (part_first) part.reset();
      known.reset();
      part.reset();
      reduce_in_place(rank, memory->data(), 1 << 18);
    }
  });
}

TEST(GpuGroupsTogether, TwoRanksOnOneGpuGoThroughTheHost) {
  if (gpu_count() < 1) GTEST_SKIP() << "this machine has no GPU";
  const int ranks = gpu_count() + 1;
  run_gpu_ranks_without_group(ranks, [&](GpuRank& rank) {
    check(!rank.group, "no group");
    check(rank.why.find("share one GPU") != std::string::npos, rank.why);
  });
}

}  // namespace
}  // namespace tandem::test
