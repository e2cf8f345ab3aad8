// Every collective op: one call of the Group. A kernel per row of tandem/collective.def.
#include <cstring>

#include "comm/group.h"
#include "core/check.h"
#include "ops/kernel.h"
#include "ops/layout/copy_cpu.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

class CollectiveKernel final : public PreparedKernel {
 public:
  explicit CollectiveKernel(const PrepareArgs& args) : group_(args.group), dims_(shape_of(args.call.operand(0))) {
    const Attributes& a = args.call.attributes;
    const int rank = static_cast<int>(dims_.size());
    const CollectiveInfo& collective = info(parse_collective(args.call.op->name));
    call_.kind = collective.kind;
    call_.dtype = args.call.operand(0).dtype;
    if (collective.reduces) call_.reduction = parse_reduction(a.text("reduce"));
    if (collective.rooted) call_.root = static_cast<int>(a.integer("root"));
    if (a.has("dim")) call_.axis = normalize_axis(a.integer("dim"), rank);
    if (a.has("shift")) call_.shift = static_cast<int>(a.integer("shift"));
    if (a.has("split_dim")) {
      call_.split_axis = normalize_axis(a.integer("split_dim"), rank);
      call_.concat_axis = normalize_axis(a.integer("concat_dim"), rank);
    }
    size_ = static_cast<int>(a.integer("num_ranks"));
    if (group_ && group_->size() != size_)
      fail(ErrorCode::mismatch, "{} is over {} ranks, its group has {}", args.call.op->name, size_, group_->size());
    plan_trim(args.call);
  }

  std::size_t workspace_bytes() const override { return untrimmed_; }

  void run(const RunArgs& args) const override {
    CollectiveCall call = call_;
    call.dims = dims_;
    call.in = args.operands[0];
    call.out = untrimmed_ ? args.workspace : args.results[0];
    call.deadline = args.deadline;
    if (group_) group_->run(call);
    else if (size_ == 1) copy_bytes(args.pool(), args.operands[0], static_cast<std::byte*>(call.out), bytes(call.dtype, element_count(dims_)));
    else pass_through(call);
    if (untrimmed_) trim_->run(args.pool(), args.workspace, args.results[0]);
  }

 private:
  // What is joined may end in padding, which `trim` drops: then the whole goes to the workspace first.
  void plan_trim(const OpCall& call) {
    CollectiveCall shape_call = call_;
    shape_call.dims = dims_;
    const Shape whole = collective_output_dims(shape_call, size_), kept = shape_of(call.results.at(0));
    if (whole == kept) return;
    const std::size_t element = static_cast<std::size_t>(bits(call_.dtype)) / 8;
    untrimmed_ = std::max<std::size_t>(bytes(call_.dtype, element_count(whole)), 1);
    trim_.emplace(element, kept, row_major_strides(whole));
  }

  Group* group_;
  Shape dims_;
  CollectiveCall call_;
  int size_ = 1;
  std::size_t untrimmed_ = 0;  // 0: nothing is trimmed
  std::optional<StridedCopy> trim_;
};

constexpr KernelDef define(Collective kind, CollectiveExtent extent, std::string_view name, std::string_view op) {
  return {
      .name = name,
      .op = op,
      .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<CollectiveKernel>(args); },
      .in_place_operand = extent == CollectiveExtent::same && kind != Collective::all_to_all ? 0 : -1,
  };
}

}  // namespace

#define TANDEM_COLLECTIVE(name, op, reduces, rooted, extent) \
  extern const KernelDef group_##name;                       \
  const KernelDef group_##name = define(Collective::name, CollectiveExtent::extent, "group_" #name, #op);
#include "tandem/collective.def"

}  // namespace tandem::kernels
