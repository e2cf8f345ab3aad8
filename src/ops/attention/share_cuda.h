// A rank's share of an attention over a split sequence, on its GPU: some rows against some columns, by the kernels of one device.
#pragma once

#include <memory>

#include "ops/attention/one_device_cuda.h"
#include "ops/attention/ranks_cpu.h"

namespace tandem::attention {

// The mask's extents over [B, H, Sq, Skv] as this rank holds it, and which of them it has.
struct MaskShape {
  explicit MaskShape(const Spread& spread);
  bool present, per_row = false, per_head = false;
  Shape dims;
};

// Steps over a mask that lies as `dims`.
void place_mask(AttentionProblem& problem, const Shape& dims);

// The call of one rank alone, of these extents.
OpCall share_of(const OpCall& call, std::int64_t heads, std::int64_t kv_heads, std::int64_t rows, std::int64_t columns);

struct Share {
  std::unique_ptr<PreparedKernel> attention;
  std::size_t q_begin, k_begin, v_begin, out_begin, mask_begin;  // bytes
  bool sees_any;                                                 // false: shapes alone say that no row may attend to any of the columns

  // Operands of the call as this rank has them, but keys and values where `problem` said that they lie.
  void run(const RunArgs& args, const std::byte* k, const std::byte* v, std::span<std::byte* const> results, std::byte* workspace) const;
};

// What shares give whose results are merged: sums by our own kernels; of what cuDNN may attend to faster, f16 and bf16 without masks and
// lengths and of many rows, results of that type and logarithms. The same on all ranks.
Gives given_to_merge(const PrepareArgs& args, const Spread& spread);

// Rows of this rank's block against neighbouring columns; `problem` says how operands lie, `columns.local` where the columns begin there.
// Where `problem` has fewer heads than the call, these are one group of them, whose run() is given
// HeadsFrom.
Share make_share(const PrepareArgs& args, const Spread& spread, AttentionProblem problem, const Segment& rows, Segment columns,
                 Gives gives);

// What a run is given, from the head `first` on: q, a mask that differs by head, and the result. Keys and values stay as they are.
struct HeadsFrom {
  HeadsFrom(const RunArgs& args, const Spread& spread, std::int64_t first);
  RunArgs run_args(const RunArgs& args) const { return {operands, results, args.workspace, args.stream, args.deadline}; }

  std::vector<const std::byte*> operands;
  std::vector<std::byte*> results;
};

// Where the group does not reach memory of GPUs, or has several ranks on one, everything goes through the host.
template <typename Kernel>
std::unique_ptr<PreparedKernel> prepare_on_gpus(const PrepareArgs& args) {
  if (args.group && args.group->backend() != "shm") return std::make_unique<Kernel>(args);
  return find_kernel("cuda_host")->prepare(args);
}

}  // namespace tandem::attention
