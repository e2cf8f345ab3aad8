// lower_precision: f32 products, attention and what lies between them in f16 or bf16, by explicit Casts. Norms, softmax, sums and
// functions that lose too much stay f32, and so do the inputs and outputs of the program.
#include <map>
#include <set>

#include "ops/quantize/operands.h"
#include "passes/match.h"
#include "passes/passes.h"
#include "passes/pipeline.h"

namespace tandem::passes {
namespace {

bool stays_f32(const Node& node) {
  static const std::set<std::string_view> kept = {
      "AddLayerNorm", "AddRmsNorm", "Cast", "Constant",   "Cos",    "CumSum",  "Exp", "GroupNorm", "Iota", "LayerNorm",
      "Log",          "LogSoftmax", "Pow",  "Reciprocal", "Reduce", "RmsNorm", "Sin", "Softmax",   "Sqrt"};
  const bool square = node.is("Mul") && node.operand(0) == node.operand(1);  // of a norm that was not recognised
  return kept.contains(node.op().name) || node.op().collective || !node.regions().empty() || square;
}

class Lowering {
 public:
  Lowering(Graph& graph, DType dtype) : graph_(graph), dtype_(dtype) {}

  bool run() {
    bool changed = false;
    for (Node* node : graph_.node_list()) changed = (!stays_f32(*node) && lower(*node)) || changed;
    return changed;
  }

 private:
  Value* low(Value* value, Node& before) {
    if (!value || value->type.dtype != DType::f32) return value;
    Value*& known = low_[value];
    if (!known) known = builder_before(before).add("Cast", {value}, {{"to", dtype_}});
    return known;
  }

  bool lower(Node& node) {
    if (node.results().size() != 1 || node.result()->type.dtype != DType::f32) return false;
    std::vector<Value*> operands;
    for (Value* operand : node.operands()) operands.push_back(low(operand, node));
    NamedAttributes attributes = named(node.attributes);
    const bool both = node.is("QuantMatMul");
    if (both || node.is("DequantMatMul")) operands[kDequantScale] = node.operand(kDequantScale);  // f16 has no room for small scales
    if (both) operands[kQuantScaleA] = node.operand(kQuantScaleA);
    for (auto& [name, value] : attributes)
      if (both && name == "to") value = dtype_;
    if (operands == node.operands() && !both) return false;
    Node* made = graph_.add(node.op(), operands, std::move(attributes), node.name(), {}, &node);
    if (made->result()->type.dtype != dtype_) return false;  // its type does not follow its operands; remove_dead takes it away
    made->note = node.note;
    Value* wide = builder_before(node).add("Cast", {made->result()}, {{"to", DType::f32}});
    low_[wide] = made->result();
    graph_.replace_uses(node.result(), wide);
    return true;
  }

  Graph& graph_;
  DType dtype_;
  std::map<const Value*, Value*> low_;  // of f32 values
};

}  // namespace

bool lower_precision(Module& module, const PassOptions& options) {
  if (!options.dtype) return false;
  bool changed = false;
  for (const auto& graph : module.graphs()) changed = Lowering(*graph, *options.dtype).run() || changed;
  return changed;
}

}  // namespace tandem::passes
