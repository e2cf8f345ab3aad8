// refine_attention: what the operands of an Attention say moves into the node. A causal part of the mask becomes its
// attribute, a mask that allows everything goes, and heads repeated for grouped queries are taken as they were before.
#include <cmath>

#include "passes/attention_mask.h"
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

constexpr std::size_t kMask = 3, kPast = 6;

// [B,Hkv,S,D] from heads repeated as [B,Hkv,1,S,D] → [B,Hkv,G,S,D] → [B,Hkv·G,S,D]; null if they are not.
Value* unrepeated(GraphBuilder& builder, Value* value) {
  Node* merge = made_by(value, "Reshape");
  Node* expand = merge ? made_by(merge->operand(0), "Expand") : nullptr;
  if (!expand || expand->operand(0)->type.rank() != 5 || expand->result()->type.rank() != 5) return nullptr;
  const auto &from = expand->operand(0)->type.dims, &wide = expand->result()->type.dims, &to = value->type.dims;
  const bool repeats = from[2] == Dim(1) && from[0] == wide[0] && from[1] == wide[1] && from[3] == wide[3] && from[4] == wide[4];
  if (!repeats || to != std::vector<Dim>{wide[0], wide[1] * wide[2], wide[3], wide[4]}) return nullptr;
  const std::vector<Dim> narrow = {from[0], from[1], from[3], from[4]};
  Node* open = made_by(expand->operand(0), "Reshape");
  if (open && open->operand(0)->type.dims == narrow) return open->operand(0);
  return reshape(builder, expand->operand(0), narrow);
}

bool take_heads(GraphBuilder& builder, std::vector<Value*>& operands) {
  Value *k = unrepeated(builder, operands[1]), *v = unrepeated(builder, operands[2]);
  if (!k || !v || k->type.dims[1] != v->type.dims[1]) return false;
  operands[1] = k;
  operands[2] = v;
  return true;
}

// A row attends to its own column at least.
bool never_empty(const Allowed& allowed, const Graph& graph) {
  return allowed.others.empty() && (!allowed.shift || allowed.shift->bounds(graph.symbol_ranges()).min >= 0);
}

void set(NamedAttributes& attributes, std::string_view name, AttributeValue value) {
  for (auto& [have, old] : attributes)
    if (have == name) old = std::move(value);
}

void set_causal(GraphBuilder& builder, const Dim& shift, std::vector<Value*>& operands, NamedAttributes& attributes) {
  const Dim rows = operands[0]->type.dims[2], columns = operands[1]->type.dims[2];
  const bool upper = shift == Dim(0), lower = shift == columns - rows;
  set(attributes, "causal", std::string(upper ? "upper_left" : lower ? "lower_right" : "offset"));
  if (upper || lower) return;
  operands.resize(kPast + 1, nullptr);
  operands[kPast] = builder.dim_value({shift}, {});
}

// Replaces the mask by what it says; whether that changed anything.
bool take_mask(Node& node, GraphBuilder& builder, std::vector<Value*>& operands, NamedAttributes& attributes) {
  Value* mask = operands.size() > kMask ? operands[kMask] : nullptr;
  if (!mask) return false;
  bool changed = false;
  while (Node* expand = made_by(mask, "Expand")) {
    operands[kMask] = mask = expand->operand(0);
    changed = true;
  }
  const Dim rows = operands[0]->type.dims[2], columns = operands[1]->type.dims[2];
  std::optional<Allowed> allowed;
  if (mask->type.dtype == DType::boolean) allowed = allowed_by(mask, false, rows, columns, builder);
  else allowed = allowed_by_additive(mask, rows, columns, builder);
  if (!allowed) return changed;
  const bool full = never_empty(*allowed, node.graph()), whole = node.attributes.text("empty_rows") == "zero";
  if (std::isinf(allowed->low) || full) {
    const bool known = !allowed->shift && (allowed->others.size() > 1 || (allowed->others.size() == 1 && allowed->others[0] == mask));
    if (known || (allowed->shift && node.attributes.text("causal") != "none")) return changed;
    operands[kMask] = nullptr;
    for (Value* other : allowed->others) operands[kMask] = operands[kMask] ? builder.add("And", {operands[kMask], other}) : other;
    if (allowed->shift) set_causal(builder, *allowed->shift, operands, attributes);
  } else if (whole) {
    return changed;
  }
  // After finite lows a row is never empty either: it becomes an even average.
  if (full || !std::isinf(allowed->low)) set(attributes, "empty_rows", std::string("zero"));
  return true;
}

bool rewrite(Node& node) {
  if (!node.is("Attention") || node.attributes.integer("num_ranks") > 1) return false;
  GraphBuilder builder = builder_before(node);
  std::vector<Value*> operands = node.operands();
  NamedAttributes attributes = named(node.attributes);
  const bool heads = take_heads(builder, operands), mask = take_mask(node, builder, operands, attributes);
  if (!heads && !mask) return false;
  while (!operands.back()) operands.pop_back();
  node.graph().replace_uses(node.result(), builder.add("Attention", operands, attributes));
  return true;
}

}  // namespace

bool refine_attention(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
