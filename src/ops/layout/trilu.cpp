#include "core/check.h"
#include "ops/layout/strided.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

std::vector<Type> infer(const OpCall& call) {
  if (call.operand(0).rank() < 2) fail(ErrorCode::invalid_model, "operand is {}, expected rank 2 or more", call.operand(0).to_string());
  return {call.operand(0)};
}

// Rows and columns stay whole: an element's position decides.
ShardingRule rule(const OpCall& call) { return rule_from_formula("... m! n! -> ... m! n!", call); }

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> x) {
  const Shape& shape = x[0].shape();
  const std::int64_t columns = shape.back(), rows = shape[shape.size() - 2], k = call.attributes.dim("k").constant();
  const bool upper = call.attributes.boolean("upper");
  Tensor out(x[0].dtype(), shape);
  std::byte* to = out.mutable_data();
  for (std::int64_t i = 0; i < out.count(); ++i) {
    const std::int64_t distance = i % columns - i / columns % rows;
    if (upper ? distance >= k : distance <= k) copy_element(out.dtype(), x[0].data(), i, to, i);
  }
  return {out};
}

std::vector<Value*> import(const ForeignNode& node, GraphBuilder& b) {
  Dim k = 0;
  if (Value* given = node.input(1)) {
    const DimContent contents = b.require_dims(given, "k");
    if (contents.size() != 1) fail(ErrorCode::invalid_model, "k must be a scalar");
    k = contents[0];
  }
  return {b.add("Trilu", {node.required(0)}, {{"upper", node.integer("upper", 1) != 0}, {"k", k}})};
}

}  // namespace

const OpDef ops::Trilu = {
    .name = "Trilu",
    .doc = "Keeps the elements on and above (or below) the k-th diagonal of the last two dimensions; the others become 0.",
    .fields = {{.name = "upper", .kind = FieldKind::boolean, .initial = true, .doc = "whether the part above is kept, else the one below"},
               {.name = "k", .kind = FieldKind::dim, .initial = Dim(0), .doc = "the diagonal: column − row"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{.op_type = "Trilu", .since = 14, .import = import}},
};

}  // namespace tandem
