#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/gather/blocks_cuda.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

// A copy of data, then the updates; rows that meet in one block are told apart by a word for each block in the workspace.
class ScatterND final : public PreparedKernel {
 public:
  explicit ScatterND(const OpCall& call) : views_(cuda::tuple_views(call, 0)) {
    const Shape shape = shape_of(call.operand(0));
    size_ = bytes(call.operand(0).dtype, element_count(shape));
    if (views_.wide.move.rows > 1)
      winners_ = sizeof(std::uint32_t) * static_cast<std::size_t>(element_count({shape.begin(), shape.begin() + views_.wide.length}));
  }

  std::size_t workspace_bytes() const override { return winners_; }

  void run(const RunArgs& args) const override {
    const cudaStream_t stream = cuda::handle_of(args.stream);
    if (size_ > 0 && args.operands[0] != args.results[0])
      cuda::check(cudaMemcpyAsync(args.results[0], args.operands[0], size_, cudaMemcpyDeviceToDevice, stream), "copying data");
    auto* winners = winners_ > 0 ? reinterpret_cast<std::uint32_t*>(args.workspace) : nullptr;
    if (winners) cuda::check(cudaMemsetAsync(winners, 0, winners_, stream), "clearing the workspace");
    cuda::launch_scatter_nd(views_.at({args.operands[2], args.results[0]}), args.operands[2], args.operands[1], args.results[0], winners,
                            cuda::fault_word_of(args.stream, cuda::FaultKind::scatter_nd), stream);
    cuda::check_launch("scatter_nd");
  }

 private:
  cuda::Plans<cuda::TupleView> views_;
  std::size_t size_ = 0, winners_ = 0;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (call.attributes.text("reduction") != "none") return "it combines in no fixed order";
  return cuda::refuse_tuples(call);
}

}  // namespace

extern const KernelDef cuda_scatter_nd;
const KernelDef cuda_scatter_nd = {
    .name = "cuda_scatter_nd",
    .op = "ScatterND",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<ScatterND>(args.call); },
    .in_place_operand = 0,
    .device = "cuda",
};

}  // namespace tandem::kernels
