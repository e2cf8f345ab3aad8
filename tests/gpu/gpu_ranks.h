// Ranks with a GPU each, as threads or as processes, and collectives on them.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "comm/gpu_group.h"
#include "core/tensor.h"
#include "device/device.h"

namespace tandem::test {

// GPUs of this machine, asked in a process of its own: one that has asked CUDA anything cannot fork ranks that use it.
int gpu_count();

// A rank with its GPU as the thread's current one.
struct GpuRank {
  // Collective. `backend` as in GpuGroupOptions.
  GpuRank(Group& control, const std::string& backend);
  // What the ranks' collectives go through.
  Group& all() { return group ? *group : control; }

  Group& control;
  std::shared_ptr<Device> device;
  OnDevice on_device;
  std::unique_ptr<Stream> stream;
  std::string why;  // there is no group
  std::unique_ptr<GpuGroup> group;
  int rows = 0;  // checked
};

enum class Isolation { threads, processes };
// Ranks that have a group, or with `backend` "host" none. Rank 0 prints how many rows were checked.
void run_gpu_ranks(Isolation isolation, int world, const std::string& backend, const std::function<void(GpuRank&)>& body);

// Ranks, as threads, whether they have a group or not.
void run_gpu_ranks_without_group(int world, const std::function<void(GpuRank&)>& body);

// The collective op on a group of GPUs, by the kernel that contexts take: given to the stream at once, then recorded and launched twice,
// each time on other inputs and a poisoned output, compared with the oracle. Throws Error(internal) naming the first element that is wrong.
void run_and_check_op(GpuRank& rank, Group& group, CollectiveCall call, const Shape& shape, std::uint64_t seed, bool in_place = false);

// The same for AllReduceAddLayerNorm and AllReduceAddRmsNorm of [rows, length].
struct NormOp {
  DType dtype = DType::bf16;
  std::int64_t rows = 1, length = 8;
  bool centers = false, offset = false;
  bool in_place = false, shifted = false;  // shifted: on rank 0 alone memory is aligned to an element only
};
void run_and_check_norm(GpuRank& rank, Group& group, const NormOp& op, std::uint64_t seed);

}  // namespace tandem::test
