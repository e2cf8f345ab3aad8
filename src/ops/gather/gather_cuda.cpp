#include "ops/gather/gather_cuda.h"

#include <algorithm>

#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/gather/index.h"
#include "ops/gather/blocks_cuda.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

class Gather final : public PreparedKernel {
 public:
  explicit Gather(const PrepareArgs& args) {
    const OpCall& call = args.call;
    const AxisView axis(shape_of(call.operand(0)), normalize_axis(call.attributes.integer("axis"), call.operand(0).rank()));
    const std::int64_t count = element_count(shape_of(call.operand(1)));
    const GatherRows rows = gather_rows(call, axis.extent);
    view_.move = cuda::block_move(call.operand(0).dtype, axis.inner, axis.outer * count);
    view_.count = cuda::Divisor(std::max<std::int64_t>(count, 1));
    view_.base = rows.base;
    view_.extent = rows.extent;
    view_.whole = rows.whole;
    view_.index_dtype = call.operand(1).dtype;
  }

  void run(const RunArgs& args) const override {
    cuda::launch_gather(view_, args.operands[0], args.operands[1], args.results[0], cuda::fault_word_of(args.stream, cuda::FaultKind::gather),
                        cuda::handle_of(args.stream));
    cuda::check_launch("gather");
  }

 private:
  cuda::GatherView view_;
};

class GatherND final : public PreparedKernel {
 public:
  explicit GatherND(const PrepareArgs& args) : view_(cuda::tuple_view(args.call, static_cast<std::size_t>(args.call.attributes.integer("batch_dims")))) {}

  void run(const RunArgs& args) const override {
    cuda::launch_gather_nd(view_, args.operands[0], args.operands[1], args.results[0], cuda::fault_word_of(args.stream, cuda::FaultKind::gather_nd),
                           cuda::handle_of(args.stream));
    cuda::check_launch("gather_nd");
  }

 private:
  cuda::TupleView view_;
};

template <typename K>
std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) { return std::make_unique<K>(args); }

}  // namespace

extern const KernelDef cuda_gather, cuda_gather_nd;
const KernelDef cuda_gather = {.name = "cuda_gather", .op = "Gather", .refuse = cuda::refuse_parts_of_bytes, .prepare = prepare<Gather>, .device = "cuda"};
const KernelDef cuda_gather_nd = {
    .name = "cuda_gather_nd", .op = "GatherND", .refuse = cuda::refuse_tuples, .prepare = prepare<GatherND>, .device = "cuda"};

}  // namespace tandem::kernels
