// recognise_attention: q·kᵀ, scale, mask, softmax, ·v over [B,H,S,D]. Rows that mask everything keep the file's result: NaN
// after −inf unless the file guards it, an even average after finite lows (such a mask stays additive). refine_attention then
// reads causal masks and repeated heads off the operands.
#include <algorithm>
#include <cmath>

#include "passes/attention_mask.h"
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

const std::vector<std::int64_t> kSwapLast = {0, 1, 3, 2};

Value* without_cast(Value* value) {
  Node* cast = made_by(value, "Cast");
  return cast && is_float(cast->operand(0)->type.dtype) ? cast->operand(0) : value;
}

// Takes factors that are numbers off a value.
Value* without_scale(Value* value, double& scale) {
  for (;;) {
    Node* node = value->producer();
    if (!node || (!node->is("Mul") && !node->is("Div"))) return value;
    const auto step = with_number(node);
    if (!step || (node->is("Div") && step->other != node->operand(0))) return value;
    scale *= node->is("Mul") ? step->number : 1 / step->number;
    value = step->other;
  }
}

struct Scores {
  Node* product = nullptr;
  double scale = 1;
  Value* additive = nullptr;   // a mask that is added
  Value* condition = nullptr;  // or a condition that chooses between a score and `low`
  bool inverted = false;       // the condition chooses `low`
  double low = 0;
};

bool find_product(Value* value, Scores& into) {
  into.product = made_by(without_cast(without_scale(without_cast(value), into.scale)), "MatMul");
  return into.product && into.product->operands().size() == 2;
}

std::optional<Scores> scores_of(Value* value) {
  value = without_cast(value);
  Scores s;
  if (Node* add = made_by(value, "Add")) {
    for (std::size_t i : {0u, 1u}) {
      s = {};
      s.additive = add->operand(1 - i);
      if (find_product(add->operand(i), s)) return s;
    }
    return std::nullopt;
  }
  if (Node* where = made_by(value, "Where")) {
    s.condition = where->operand(0);
    s.inverted = is_low(number_of(where->operand(1)));
    const auto low = number_of(where->operand(s.inverted ? 1 : 2));
    if (!is_low(low)) return std::nullopt;
    s.low = *low;
    return find_product(where->operand(s.inverted ? 2 : 1), s) ? std::optional(s) : std::nullopt;
  }
  return find_product(value, s) ? std::optional(s) : std::nullopt;
}

struct Weighted {
  Node* product = nullptr;
  bool guarded = false;  // rows of NaN become 0
};

// From the softmax to the product with v.
std::optional<Weighted> weighted_by(Value* probabilities) {
  Weighted out;
  Value* p = probabilities;
  for (int depth = 0; depth < 4; ++depth) {
    if (p->graph().is_output(p)) return std::nullopt;
    if (Node* product = only_user(p, "MatMul"); product && product->operand(0) == p && product->operands().size() == 2) {
      out.product = product;
      return out;
    }
    if (Node* cast = only_user(p, "Cast"); cast && is_float(cast->result()->type.dtype)) {
      p = cast->result();
      continue;
    }
    if (p->uses().size() != 2) return std::nullopt;
    Node* where = nullptr;
    for (const Use& use : p->uses())
      if (use.node->is("Where") && use.operand == 2) where = use.node;
    Node* is_nan = where ? made_by(where->operand(0), "IsNaN") : nullptr;
    if (!is_nan || is_nan->operand(0) != p || number_of(where->operand(1)) != 0.0) return std::nullopt;
    out.guarded = true;
    p = where->result();
  }
  return std::nullopt;
}

// k of [B,H,S,D] from kᵀ of [B,H,D,S].
Value* untransposed(GraphBuilder& builder, Value* kt, double& scale) {
  kt = without_scale(kt, scale);
  Node* transpose = made_by(kt, "Transpose");
  if (!transpose) return builder.add("Transpose", {kt}, {{"permutation", kSwapLast}});
  const auto& permutation = transpose->attributes.integers("permutation");
  Value* from = without_scale(transpose->operand(0), scale);
  std::vector<std::int64_t> rest;
  for (std::int64_t p : kSwapLast) rest.push_back(permutation[static_cast<std::size_t>(p)]);
  return std::ranges::is_sorted(rest) ? from : builder.add("Transpose", {from}, {{"permutation", rest}});
}

// The mask operand: what is added, or a condition. Where a condition chooses a finite number, rows without any attend evenly.
Value* mask_of(const Scores& s, GraphBuilder& builder) {
  if (!s.condition) return s.additive;
  if (std::isinf(s.low)) return s.inverted ? builder.add("Not", {s.condition}) : s.condition;
  const DType dtype = s.product->result()->type.dtype;
  Value *zero = builder.scalar(dtype, 0), *low = builder.scalar(dtype, s.low);
  return builder.add("Where", s.inverted ? std::vector{s.condition, low, zero} : std::vector{s.condition, zero, low});
}

// Batch and heads fit without broadcasting.
bool fits(const Value* q, const Value* k, const Value* v, const Value* mask) {
  const auto &dq = q->type.dims, &dk = k->type.dims, &dv = v->type.dims;
  if (dq[0] != dk[0] || dq[0] != dv[0] || dk[1] != dv[1] || dk[2] != dv[2] || dq[3] != dk[3]) return false;
  if (dq[1] != dk[1] && !dq[1].exact_divide(dk[1])) return false;
  if (q->type.dtype != k->type.dtype || q->type.dtype != v->type.dtype) return false;
  return !mask || mask->type.rank() <= 4;
}

bool rewrite(Node& node) {
  if (!node.is("Softmax") || node.result()->type.rank() != 4) return false;
  const std::int64_t axis = node.attributes.integer("axis");
  if (axis != -1 && axis != 3) return false;
  auto scores = scores_of(node.operand(0));
  const auto weighted = scores ? weighted_by(node.result()) : std::nullopt;
  if (!weighted) return false;
  Node& product = *scores->product;
  Value* v = weighted->product->operand(1);
  if (product.operand(0)->type.rank() != 4 || product.operand(1)->type.rank() != 4 || v->type.rank() != 4) return false;
  if (product.result()->type.dims != node.result()->type.dims) return false;  // a mask with a larger batch
  GraphBuilder builder = builder_before(*weighted->product);
  double scale = scores->scale;
  Value* q = without_scale(product.operand(0), scale);
  Value* k = untransposed(builder, product.operand(1), scale);
  Value* mask = mask_of(*scores, builder);
  if (!fits(q, k, v, mask)) return false;
  std::vector<Value*> operands = {q, k, v};
  if (mask) operands.push_back(mask);
  const NamedAttributes attributes = {{"scale", scale}, {"empty_rows", std::string(weighted->guarded || !mask ? "zero" : "nan")}};
  Value* result = builder.add("Attention", operands, attributes);
  if (result->type.dtype != weighted->product->result()->type.dtype)
    result = builder.add("Cast", {result}, {{"to", weighted->product->result()->type.dtype}});
  node.graph().replace_uses(weighted->product->result(), result);
  return true;
}

}  // namespace

bool recognise_attention(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
