#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/tensor.h"
#include "ops/gather/index.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

// Whole rows of a table.
class Gather final : public PreparedKernel {
 public:
  explicit Gather(const OpCall& call)
      : view_(shape_of(call.operand(0)), normalize_axis(call.attributes.integer("axis"), call.operand(0).rank())),
        indices_(element_count(shape_of(call.operand(1)))), index_dtype_(call.operand(1).dtype),
        row_(bytes(call.operand(0).dtype, view_.inner)), rows_(gather_rows(call, view_.extent)) {}

  void run(const RunArgs& args) const override {
    const std::int64_t grain = std::max<std::int64_t>(1, (1 << 15) / static_cast<std::int64_t>(std::max<std::size_t>(row_, 1)));
    args.pool.split(view_.outer * indices_, grain, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        const auto row = rows_.find(load_int(index_dtype_, args.operands[1], i % indices_));
        std::byte* to = args.results[0] + static_cast<std::size_t>(i) * row_;
        if (row_ == 0) continue;
        if (!row) std::memset(to, 0, row_);  // another rank's row
        else std::memcpy(to, args.operands[0] + static_cast<std::size_t>(i / indices_ * view_.extent + *row) * row_, row_);
      }
    });
  }

 private:
  AxisView view_;
  std::int64_t indices_;
  DType index_dtype_;
  std::size_t row_;
  GatherRows rows_;
};

}  // namespace

extern const KernelDef gather;
const KernelDef gather = {
    .name = "gather",
    .op = "Gather",
    .refuse = [](const OpCall& call) -> std::optional<std::string> {
      if (bits(call.operand(0).dtype) < 8) return "its elements are parts of bytes";
      return std::nullopt;
    },
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Gather>(args.call); },
};

}  // namespace tandem::kernels
