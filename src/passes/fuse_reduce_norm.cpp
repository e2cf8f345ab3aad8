// fuse_reduce_norm: an all-reduce whose only user adds a residual and norms the sum becomes one node with that.
#include <algorithm>

#include "passes/match.h"
#include "passes/passes.h"
#include "passes/pipeline.h"

namespace tandem::passes {
namespace {

Node* reduce_of(const Value* value) {
  Node* reduce = made_by(value, "AllReduce");
  return reduce && has_one_use(value) && reduce->attributes.text("reduce") == "sum" ? reduce : nullptr;
}

bool has_kernels(const Node& norm) {
  const Type& x = norm.operand(0)->type;
  return x.dtype == DType::f32 || x.dtype == DType::f16 || x.dtype == DType::bf16;
}

bool rewrite(Node& node) {
  const bool layer = node.is("AddLayerNorm");
  if ((!layer && !node.is("AddRmsNorm")) || !has_kernels(node)) return false;
  std::vector<Value*> operands = node.operands();
  Node* reduce = reduce_of(operands[0]);
  if (!reduce && (reduce = reduce_of(operands[1]))) std::swap(operands[0], operands[1]);
  if (!reduce) return false;
  operands[0] = reduce->operand(0);
  NamedAttributes attributes = {{"dim", node.attributes.integer("axis")}, {"epsilon", node.attributes.real("epsilon")}};
  for (const char* name : {"axis", "groups", "num_ranks"})
    for (const auto& [field, value] : named(reduce->attributes))
      if (field == name) attributes.emplace_back(name, value);
  GraphBuilder builder = builder_before(node);
  if (!reduce->name().empty()) builder.set_context(reduce->name());  // it is part of the block that ends here, not of the one after
  const auto results = builder.add_all(layer ? "AllReduceAddLayerNorm" : "AllReduceAddRmsNorm", operands, attributes);
  results[0]->producer()->note = reduce->note;
  for (std::size_t i = 0; i < results.size(); ++i) {
    results[i]->sharding = node.result(i)->sharding;
    node.graph().replace_uses(node.result(i), results[i]);
  }
  return true;
}

}  // namespace

bool fuse_reduce_norm(Module& module, const PassOptions& options) { return options.same_program && for_each_node(module, rewrite); }

}  // namespace tandem::passes
