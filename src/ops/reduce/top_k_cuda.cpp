#include "ops/reduce/top_k_cuda.h"

#include <algorithm>
#include <bit>

#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/reduce/top_k.h"

namespace tandem::cuda {
namespace {

constexpr std::uint32_t kSortedInShared = 2048;
constexpr std::int64_t kBlocksInWorkspace = 264;  // two for each multiprocessor of an H100: each has its own part

}  // namespace

TopKPlan plan_top_k(TopKPlan plan) {
  plan.sorts_all = plan.extent <= kSortedInShared;
  plan.sorted = std::bit_ceil(plan.sorts_all ? plan.extent : plan.k);
  plan.in_workspace = plan.sorted > kSortedInShared;
  plan.blocks = static_cast<unsigned>(std::min(plan.lines, plan.in_workspace ? kBlocksInWorkspace : kMostTopK));
  plan.threads = plan.sorts_all ? std::clamp(plan.sorted / 2, 32u, 1024u) : 1024;
  if (plan.in_workspace) plan.workspace_bytes = std::size_t{plan.blocks} * plan.sorted * top_k_candidate_bytes(plan.dtype);
  return plan;
}

}  // namespace tandem::cuda

namespace tandem::kernels {
namespace {

class TopK final : public PreparedKernel {
 public:
  explicit TopK(const OpCall& call) {
    const TopKView v = top_k_view(call);
    if (v.extent > cuda::kMostTopK) fail(ErrorCode::unsupported, "{} elements along the axis are more than one kernel counts", v.extent);
    nothing_ = v.lines() == 0 || v.k == 0;
    if (!nothing_)
      plan_ =
          cuda::plan_top_k({v.dtype, v.largest, v.lines(), v.inner, static_cast<std::uint32_t>(v.extent), static_cast<std::uint32_t>(v.k)});
  }

  std::size_t workspace_bytes() const override { return plan_.workspace_bytes; }

  void run(const RunArgs& args) const override {
    if (nothing_) return;
    cuda::launch_top_k(plan_, args.operands[0], args.results[0], reinterpret_cast<std::int64_t*>(args.results[1]), args.workspace,
                       cuda::handle_of(args.stream));
    cuda::check_launch("top_k");
  }

 private:
  bool nothing_;
  cuda::TopKPlan plan_;
};

std::optional<std::string> refuse(const OpCall& call) {
  const DType dtype = call.operand(0).dtype;
  if (bits(dtype) < 8 || dtype == DType::f8e4m3 || dtype == DType::f8e5m2) return fmt::format("it compares no {}", to_string(dtype));
  return std::nullopt;
}

}  // namespace

extern const KernelDef cuda_top_k;
const KernelDef cuda_top_k = {
    .name = "cuda_top_k",
    .op = "TopK",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<TopK>(args.call); },
    .device = "cuda",
};

}  // namespace tandem::kernels
