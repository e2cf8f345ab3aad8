// Collective ops on CPU ranks: one kernel that hands the call to the Group.
#include "comm/group.h"
#include "ops/kernel.h"

namespace tandem::kernels {
namespace {

class GroupCall final : public PreparedKernel {
 public:
  explicit GroupCall(const PrepareArgs& args) : group_(args.group) {
    const OpCall& call = args.call;
    for (const Dim& d : call.operand(0).dims) dims_.push_back(d.constant());
    call_.kind = parse_collective(call.op->name);
    call_.dtype = call.operand(0).dtype;
    const Attributes& a = call.attributes;
    const CollectiveInfo& about = info(call_.kind);
    if (about.reduces) call_.reduction = parse_reduction(a.text("reduce"));
    if (about.rooted) call_.root = static_cast<int>(a.integer("root"));
    if (a.has("dim")) call_.axis = static_cast<int>(a.integer("dim"));
    if (a.has("split_dim")) call_.split_axis = static_cast<int>(a.integer("split_dim"));
    if (a.has("concat_dim")) call_.concat_axis = static_cast<int>(a.integer("concat_dim"));
    if (a.has("shift")) call_.shift = static_cast<int>(a.integer("shift"));
  }

  void run(const RunArgs& args) const override {
    CollectiveCall call = call_;
    call.dims = dims_;
    call.in = args.operands[0];
    call.out = args.results[0];
    call.deadline = args.deadline;
    if (group_) group_->run(call);
    else pass_through(call);
  }

 private:
  Group* group_;
  Shape dims_;
  CollectiveCall call_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (!call.op->collective) return "it does not communicate";
  if (call.attributes.has("trim") && call.attributes.dim("trim") != Dim(0)) return "it cannot trim what it gathers";
  return std::nullopt;
}

}  // namespace

extern const KernelDef collective = {
    .name = "collective",
    .op = "",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<GroupCall>(args); },
};

}  // namespace tandem::kernels
