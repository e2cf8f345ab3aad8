#include "ops/layout/concat_cuda.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/aligned_cuda.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

class Concat final : public PreparedKernel {
 public:
  explicit Concat(const OpCall& call) : launches_{plan(call, 16), plan(call, bits(call.results.at(0).dtype) / 8)} {}

  void run(const RunArgs& args) const override {
    bool wide = cuda::all_aligned_16({args.results[0]});
    for (const std::byte* part : args.operands) wide = wide && cuda::all_aligned_16({part});
    for (const Launch& launch : wide ? launches_.wide : launches_.narrow) {
      cuda::ConcatView view = launch.view;
      for (std::size_t k = 0; k < launch.operands.size(); ++k) view.from[k] = args.operands[launch.operands[k]];
      cuda::launch_concat(view, args.results[0], cuda::start_of(args));
      cuda::check_launch("concat");
    }
  }

 private:
  struct Launch {
    cuda::ConcatView view;
    std::vector<std::size_t> operands;
  };

  // `most`: bytes that may be moved at once.
  static std::vector<Launch> plan(const OpCall& call, std::int64_t most) {
    const DType dtype = call.results.at(0).dtype;
    const int axis = normalize_axis(call.attributes.integer("axis"), call.results[0].rank());
    const AxisView whole(shape_of(call.results[0]), axis);
    std::vector<Launch> launches;
    std::vector<std::int64_t> sizes;
    std::int64_t common = most;
    for (std::size_t i = 0; i < call.operands.size(); ++i) {
      sizes.push_back(static_cast<std::int64_t>(bytes(dtype, AxisView(shape_of(call.operand(i)), axis).extent * whole.inner)));
      common = std::gcd(common, sizes.back());
    }
    cuda::ConcatView view{.bytes = static_cast<int>(common), .lines = whole.outer};
    view.pitch = static_cast<std::int64_t>(bytes(dtype, whole.extent * whole.inner)) / common;
    for (std::size_t i = 0; i < sizes.size(); ++i)
      if (sizes[i] > 0 && whole.outer > 0) add(launches, view, i, sizes[i] / common);
    return launches;
  }

  // `width` more vectors of each line, in the last launch or a new one.
  static void add(std::vector<Launch>& launches, const cuda::ConcatView& empty, std::size_t operand, std::int64_t width) {
    if (launches.empty() || launches.back().operands.size() == cuda::kConcatParts) {
      const std::int64_t done = launches.empty() ? 0 : launches.back().view.to_offset + launches.back().view.line.by;
      launches.push_back({empty, {}});
      launches.back().view.to_offset = done;
      std::ranges::fill(launches.back().view.begins, ~std::uint32_t{0});
    }
    auto& [view, operands] = launches.back();
    const std::int64_t before = operands.empty() ? 0 : view.line.by, after = before + width;
    if (after > cuda::kMostItems) fail(ErrorCode::unsupported, "lines of {} bytes are more than one kernel moves", after * view.bytes);
    view.begins[operands.size()] = static_cast<std::uint32_t>(before);
    view.widths[operands.size()] = static_cast<std::uint32_t>(width);
    view.line = cuda::Divisor(after);
    operands.push_back(operand);
  }

  cuda::Plans<std::vector<Launch>> launches_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (bits(call.operand(0).dtype) < 8) return "its elements are parts of bytes";
  return std::nullopt;
}

}  // namespace

extern const KernelDef cuda_concat;
const KernelDef cuda_concat = {
    .name = "cuda_concat",
    .op = "Concat",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Concat>(args.call); },
    .device = "cuda",
    .dependent = true,
};

}  // namespace tandem::kernels
