#include "ops/gather/nonzero_cuda.h"

#include <algorithm>

#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/gather/nonzero.h"
#include "ops/kernel.h"

namespace tandem::kernels {
namespace {

class NonZero final : public PreparedKernel {
 public:
  explicit NonZero(const OpCall& call) {
    const NonZeroView view = nonzero_view(call);
    launch_.count = view.count;
    launch_.mask = view.mask;
    launch_.element_bytes = static_cast<std::uint32_t>(view.element_bytes);
    launch_.rank = static_cast<int>(view.extents.size());
    std::ranges::copy(view.extents, launch_.extents);
  }

  std::size_t workspace_bytes() const override {
    return static_cast<std::size_t>((launch_.count + cuda::kNonZeroTile - 1) / cuda::kNonZeroTile) * sizeof(std::int64_t);
  }

  void run(const RunArgs& args) const override {
    cuda::launch_nonzero(launch_, args.operands[0], reinterpret_cast<std::int64_t*>(args.results[0]),
                         reinterpret_cast<std::int64_t*>(args.results[1]), reinterpret_cast<std::int64_t*>(args.workspace),
                         cuda::handle_of(args.stream));
    cuda::check_launch("nonzero");
  }

 private:
  cuda::NonZeroLaunch launch_;
};

std::optional<std::string> refuse(const OpCall& call) {
  const Type& x = call.operand(0);
  if (bits(x.dtype) < 8) return "its elements are parts of bytes";
  if (x.rank() > cuda::kNonZeroRank) return fmt::format("{} dimensions are more than {}", x.rank(), cuda::kNonZeroRank);
  return std::nullopt;
}

}  // namespace

extern const KernelDef cuda_nonzero;
const KernelDef cuda_nonzero = {
    .name = "cuda_nonzero",
    .op = "NonZero",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<NonZero>(args.call); },
    .device = "cuda",
};

}  // namespace tandem::kernels
