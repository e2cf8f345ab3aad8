#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/along_axis.h"
#include "ops/gather/blocks_cuda.h"
#include "ops/shape_rules.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

class GatherElements final : public PreparedKernel {
 public:
  explicit GatherElements(const OpCall& call) {
    const auto axis = static_cast<std::size_t>(axis_of(call));
    const Shape from = shape_of(call.operand(0)), to = shape_of(call.operand(1));
    for (std::size_t d = 0; d < to.size(); ++d)
      if (d != axis && to[d] > from[d]) fail(ErrorCode::invalid_argument, "indices {} reach past data {}", to_string(to), to_string(from));
    Shape strides = row_major_strides(from);
    view_.bytes = bits(call.operand(0).dtype) / 8;
    view_.index_dtype = call.operand(1).dtype;
    view_.extent = from[axis];
    view_.step = strides[axis];
    strides[axis] = 0;
    const std::int64_t items = element_count(to);
    if (items > cuda::kMostItems) fail(ErrorCode::unsupported, "{} indices are more than one kernel counts", items);
    view_.items = static_cast<std::uint32_t>(items);
    if (items > 0) add_walk(to, strides);
  }

  void run(const RunArgs& args) const override {
    cuda::launch_gather_elements(view_, args.operands[0], args.operands[1], args.results[0],
                                 cuda::fault_word_of(args.stream, cuda::FaultKind::gather_elements), cuda::start_of(args));
    cuda::check_launch("gather_elements");
  }

 private:
  // Innermost first, neighbours that are one run in the data as one.
  void add_walk(const Shape& to, const Shape& strides) {
    for (std::size_t d = to.size(); d-- > 0;) {
      if (to[d] == 1) continue;
      const int last = view_.rank - 1;
      if (last >= 0 && strides[d] == view_.strides[last] * view_.extents[last].by) {
        view_.extents[last] = cuda::Divisor(view_.extents[last].by * to[d]);
        continue;
      }
      view_.extents[view_.rank] = cuda::Divisor(to[d]);
      view_.strides[view_.rank] = strides[d];
      ++view_.rank;
    }
  }

  cuda::ElementsView view_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (call.operand(0).rank() > cuda::kWalkRank) return fmt::format("it has more than {} dimensions", cuda::kWalkRank);
  return cuda::refuse_parts_of_bytes(call);
}

}  // namespace

extern const KernelDef cuda_gather_elements;
const KernelDef cuda_gather_elements = {
    .name = "cuda_gather_elements",
    .op = "GatherElements",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<GatherElements>(args.call); },
    .device = "cuda",
    .dependent = true,
};

}  // namespace tandem::kernels
