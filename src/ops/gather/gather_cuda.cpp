#include "ops/gather/gather_cuda.h"

#include <algorithm>

#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/gather/blocks_cuda.h"
#include "ops/gather/index.h"
#include "ops/shape_rules.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

class Gather final : public PreparedKernel {
 public:
  explicit Gather(const PrepareArgs& args) : views_{view(args.call, 16), view(args.call, bits(args.call.operand(0).dtype) / 8)} {}

  void run(const RunArgs& args) const override {
    cuda::launch_gather(views_.at({args.operands[0], args.results[0]}), args.operands[0], args.operands[1], args.results[0],
                        cuda::fault_word_of(args.stream, cuda::FaultKind::gather), cuda::start_of(args));
    cuda::check_launch("gather");
  }

 private:
  // `most`: bytes that may be moved at once.
  static cuda::GatherView view(const OpCall& call, std::int64_t most) {
    const AxisView axis(shape_of(call.operand(0)), normalize_axis(call.attributes.integer("axis"), call.operand(0).rank()));
    const std::int64_t count = element_count(shape_of(call.operand(1)));
    const GatherRows rows = gather_rows(call, axis.extent);
    cuda::GatherView v;
    v.move = cuda::block_move(call.operand(0).dtype, axis.inner, axis.outer * count, most);
    v.count = cuda::Divisor(std::max<std::int64_t>(count, 1));
    v.base = rows.base;
    v.extent = rows.extent;
    v.whole = rows.whole;
    v.index_dtype = call.operand(1).dtype;
    return v;
  }

  cuda::Plans<cuda::GatherView> views_;
};

class GatherND final : public PreparedKernel {
 public:
  explicit GatherND(const PrepareArgs& args)
      : views_(cuda::tuple_views(args.call, static_cast<std::size_t>(args.call.attributes.integer("batch_dims")))) {}

  void run(const RunArgs& args) const override {
    cuda::launch_gather_nd(views_.at({args.operands[0], args.results[0]}), args.operands[0], args.operands[1], args.results[0],
                           cuda::fault_word_of(args.stream, cuda::FaultKind::gather_nd), cuda::start_of(args));
    cuda::check_launch("gather_nd");
  }

 private:
  cuda::Plans<cuda::TupleView> views_;
};

template <typename K>
std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return std::make_unique<K>(args);
}

}  // namespace

extern const KernelDef cuda_gather, cuda_gather_nd;
const KernelDef cuda_gather = {.name = "cuda_gather",
                               .op = "Gather",
                               .refuse = cuda::refuse_parts_of_bytes,
                               .prepare = prepare<Gather>,
                               .device = "cuda",
                               .dependent = true};
const KernelDef cuda_gather_nd = {.name = "cuda_gather_nd",
                                  .op = "GatherND",
                                  .refuse = cuda::refuse_tuples,
                                  .prepare = prepare<GatherND>,
                                  .device = "cuda",
                                  .dependent = true};

}  // namespace tandem::kernels
