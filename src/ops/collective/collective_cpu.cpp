// Every collective op: one call of the Group. A kernel per row of tandem/collective.def.
#include <cstring>

#include "core/check.h"
#include "ops/collective/collective_cpu.h"
#include "ops/layout/copy_cpu.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

class CollectiveKernel final : public PreparedKernel {
 public:
  explicit CollectiveKernel(const PrepareArgs& args) : CollectiveKernel(args, collective_op(args)) {}

  std::size_t workspace_bytes() const override { return untrimmed_; }

  void run(const RunArgs& args) const override {
    CollectiveCall call = call_;
    call.dims = dims_;
    call.in = args.operands[0];
    call.out = untrimmed_ ? args.workspace : args.results[0];
    call.deadline = args.deadline;
    if (group_) group_->run(call);
    else if (size_ == 1)
      copy_bytes(args.pool(), args.operands[0], static_cast<std::byte*>(call.out), bytes(call.dtype, element_count(dims_)));
    else pass_through(call);
    if (untrimmed_) trim_->run(args.pool(), args.workspace, args.results[0]);
  }

 private:
  CollectiveKernel(const PrepareArgs& args, CollectiveOp op)
      : group_(args.group), dims_(std::move(op.dims)), call_(op.call), size_(op.size) {
    if (op.whole == op.kept) return;
    const std::size_t element = static_cast<std::size_t>(bits(call_.dtype)) / 8;
    untrimmed_ = std::max<std::size_t>(bytes(call_.dtype, element_count(op.whole)), 1);
    trim_.emplace(element, op.kept, row_major_strides(op.whole));
  }

  Group* group_;
  Shape dims_;
  CollectiveCall call_;
  int size_;
  std::size_t untrimmed_ = 0;  // 0: nothing is trimmed
  std::optional<StridedCopy> trim_;
};

constexpr KernelDef define(Collective kind, CollectiveExtent extent, std::string_view name, std::string_view op) {
  return {
      .name = name,
      .op = op,
      .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<CollectiveKernel>(args); },
      .in_place_operand = extent == CollectiveExtent::same&& kind != Collective::all_to_all ? 0 : -1,
  };
}

}  // namespace

CollectiveOp collective_op(const PrepareArgs& args) {
  const Attributes& a = args.call.attributes;
  CollectiveOp op{
      .dims = shape_of(args.call.operand(0)), .kept = shape_of(args.call.results.at(0)), .size = static_cast<int>(a.integer("num_ranks"))};
  const int rank = static_cast<int>(op.dims.size());
  const CollectiveInfo& collective = info(parse_collective(args.call.op->name));
  CollectiveCall& call = op.call;
  call.kind = collective.kind;
  call.dtype = args.call.operand(0).dtype;
  if (collective.reduces) call.reduction = parse_reduction(a.text("reduce"));
  if (collective.rooted) call.root = static_cast<int>(a.integer("root"));
  if (a.has("dim")) call.axis = normalize_axis(a.integer("dim"), rank);
  if (a.has("shift")) call.shift = static_cast<int>(a.integer("shift"));
  if (a.has("split_dim")) {
    call.split_axis = normalize_axis(a.integer("split_dim"), rank);
    call.concat_axis = normalize_axis(a.integer("concat_dim"), rank);
  }
  if (args.group && args.group->size() != op.size)
    fail(ErrorCode::mismatch, "{} is over {} ranks, its group has {}", args.call.op->name, op.size, args.group->size());
  CollectiveCall shapes = call;
  shapes.dims = op.dims;
  op.whole = collective_output_dims(shapes, op.size);
  return op;
}

#define TANDEM_COLLECTIVE(name, op, reduces, rooted, extent) \
  extern const KernelDef group_##name;                       \
  const KernelDef group_##name = define(Collective::name, CollectiveExtent::extent, "group_" #name, #op);
#include "tandem/collective.def"

}  // namespace tandem::kernels
