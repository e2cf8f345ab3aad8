#include "ops/reduce/plan_cuda.h"

#include <algorithm>

#include "core/check.h"
#include "ops/shape_rules.h"

namespace tandem::cuda {
namespace {

constexpr std::int64_t kBlocks =
    1056;  // eight for each multiprocessor of an H200; a number of its own, so that results do not depend on the GPU
constexpr std::int64_t kMostSplits = 1024, kLoadsAtOnce = 4, kMostLoads = 32;

struct Axis {
  std::int64_t extent, stride;
  bool lost;
};

// Innermost first, neighbours of one kind as one.
std::vector<Axis> merged_axes(const Shape& shape, const std::vector<int>& axes) {
  const Shape strides = row_major_strides(shape);
  std::vector<Axis> merged;
  for (std::size_t d = shape.size(); d-- > 0;) {
    const bool lost = std::ranges::binary_search(axes, static_cast<int>(d));
    if (shape[d] == 1) continue;
    if (!merged.empty() && merged.back().lost == lost) merged.back().extent *= shape[d];
    else merged.push_back({shape[d], strides[d], lost});
  }
  return merged;
}

std::int64_t count(const std::vector<Axis>& axes, bool lost) {
  std::int64_t all = 1;
  for (const Axis& a : axes)
    if (a.lost == lost) all *= a.extent;
  if (all > kMostItems)
    fail(ErrorCode::unsupported, "{} {} are more than one kernel counts", all, lost ? "elements of one result" : "results");
  return all;
}

void add(ReduceAxes& to, const Axis& axis) {
  to.extents[to.rank] = Divisor(axis.extent);
  to.strides[to.rank] = axis.stride;
  ++to.rank;
}

std::int64_t ceil_of(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// A warp for a row, less where it is short; more threads where rows are long, or too few to keep all multiprocessors reading.
void share_rows(ReducePlan& plan) {
  const std::int64_t items = plan.items, outputs = plan.outputs;
  const auto is_small = [&](std::int64_t team) {
    return (team < 32 && team * kLoadsAtOnce < items) || team * kMostLoads < items ||
           (team < items && 2 * outputs * team < kBlocks * kReduceThreads);
  };
  while (plan.team < kReduceThreads && is_small(plan.team)) plan.team *= 2;
  if (plan.team == kReduceThreads && outputs < kBlocks)
    plan.splits =
        Divisor(std::clamp<std::int64_t>(items / (kReduceThreads * 2 * kLoadsAtOnce), 1, std::min(kMostSplits, ceil_of(kBlocks, outputs))));
}

void share_columns(ReducePlan& plan) {
  const std::int64_t blocks = ceil_of(plan.groups, kColumnLanes);
  if (blocks < kBlocks)
    plan.splits = Divisor(
        std::clamp<std::int64_t>(plan.items / (kColumnLines * 2 * kLoadsAtOnce), 1, std::min(kMostSplits, ceil_of(kBlocks, blocks))));
}

}  // namespace

ReducePlan plan_reduce(const Shape& shape, const std::vector<int>& axes, int vector) {
  ReducePlan plan;
  std::vector<Axis> merged = merged_axes(shape, axes);
  plan.outputs = static_cast<std::uint32_t>(count(merged, false));
  plan.extent = count(merged, true);
  if (plan.outputs == 0 || plan.extent == 0) {  // nothing is read
    plan.groups = plan.outputs;
    return plan;
  }
  plan.rows = merged.empty() || merged[0].lost || plan.extent == 1;
  const bool vectors = !merged.empty() && merged[0].lost == plan.rows && merged[0].extent % vector == 0 &&
                       std::all_of(merged.begin() + 1, merged.end(), [&](const Axis& a) { return a.stride % vector == 0; });
  if (vectors) {
    plan.vector = vector;
    merged[0].extent /= vector;
    merged[0].stride = vector;
  }
  for (const Axis& a : merged) add(a.lost ? plan.lost : plan.kept, a);
  plan.groups = plan.rows ? plan.outputs : plan.outputs / static_cast<std::uint32_t>(plan.vector);
  plan.items = static_cast<std::uint32_t>(plan.rows ? plan.extent / plan.vector : plan.extent);
  if (plan.rows) share_rows(plan);
  else share_columns(plan);
  plan.chunk = static_cast<std::uint32_t>(ceil_of(plan.items, plan.splits.by));
  return plan;
}

Plans<ReducePlan> plan_reduce(const Shape& shape, const std::vector<int>& axes, DType dtype) {
  const int vector = is_float(dtype) ? 128 / bits(dtype) : 1;  // kernels of integers take one at a time
  return {plan_reduce(shape, axes, vector), plan_reduce(shape, axes, 1)};
}

std::size_t reduce_workspace(const Plans<ReducePlan>& plans) {
  const std::size_t splits = std::max(plans.wide.splits.by, plans.narrow.splits.by);
  return splits > 1 ? std::size_t{16} * plans.wide.outputs * splits : 0;
}

}  // namespace tandem::cuda
