// recognise_attention: q·kᵀ, scale, mask, softmax, ·v over [B,H,S,D]. Rows that mask everything keep the file's result: NaN
// after −inf unless the file guards it, an even average after finite lows (such a mask stays additive).
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

struct Mask {
  Value* operand = nullptr;
  std::optional<Dim> shift;
  bool may_be_empty = false;  // a row may hold nothing but −inf
};

Mask mask_of(const Scores& s, const Dim& rows, const Dim& columns, GraphBuilder& builder) {
  if (!s.additive && !s.condition) return {};
  std::optional<Allowed> allowed;
  if (s.additive) {
    allowed = allowed_by_additive(s.additive, rows, columns, builder);
    if (!allowed) return {s.additive, std::nullopt, true};
  } else {
    allowed = allowed_by(s.condition, s.inverted, rows, columns, builder);
    allowed->low = s.low;
  }
  const bool never_empty = allowed->others.empty() && (!allowed->shift || allowed->shift->bounds(builder.graph().symbol_ranges()).min >= 0);
  if (std::isinf(allowed->low) || never_empty) {
    Mask mask{nullptr, allowed->shift, !never_empty};
    for (Value* other : allowed->others) mask.operand = mask.operand ? builder.add("And", {mask.operand, other}) : other;
    return mask;
  }
  if (s.additive) return {s.additive};
  const DType dtype = s.product->result()->type.dtype;
  Value *zero = builder.scalar(dtype, 0), *low = builder.scalar(dtype, s.low);
  return {builder.add("Where", s.inverted ? std::vector{s.condition, low, zero} : std::vector{s.condition, zero, low})};
}

// Batch and heads fit without broadcasting.
bool fits(const Value* q, const Value* k, const Value* v, const Value* mask) {
  const auto &dq = q->type.dims, &dk = k->type.dims, &dv = v->type.dims;
  if (dq[0] != dk[0] || dq[0] != dv[0] || dk[1] != dv[1] || dk[2] != dv[2] || dq[3] != dk[3]) return false;
  if (dq[1] != dk[1] && !dq[1].exact_divide(dk[1])) return false;
  if (q->type.dtype != k->type.dtype || q->type.dtype != v->type.dtype) return false;
  return !mask || mask->type.rank() <= 4;
}

NamedAttributes attributes_of(const Mask& mask, double scale, bool zero, const Dim& rows, const Dim& columns) {
  NamedAttributes attributes = {{"scale", scale}, {"empty_rows", std::string(zero ? "zero" : "nan")}};
  if (!mask.shift) return attributes;
  const bool upper = *mask.shift == Dim(0), lower = *mask.shift == columns - rows;
  attributes.emplace_back("causal", std::string(upper ? "upper_left" : lower ? "lower_right" : "offset"));
  return attributes;
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
  const Dim rows = product.result()->type.dims[2], columns = product.result()->type.dims[3];
  if (product.result()->type.dims != node.result()->type.dims) return false;  // a mask with a larger batch
  GraphBuilder builder = builder_before(*weighted->product);
  double scale = scores->scale;
  Value* q = without_scale(product.operand(0), scale);
  Value* k = untransposed(builder, product.operand(1), scale);
  if (Value *k_few = unrepeated(builder, k), *v_few = unrepeated(builder, v); k_few && v_few && k_few->type.dims[1] == v_few->type.dims[1]) {
    k = k_few;
    v = v_few;
  }
  Mask mask = mask_of(*scores, rows, columns, builder);
  if (!fits(q, k, v, mask.operand)) return false;
  std::vector<Value*> operands = {q, k, v};
  if (mask.operand) operands.push_back(mask.operand);
  const NamedAttributes attributes = attributes_of(mask, scale, weighted->guarded || !mask.may_be_empty, rows, columns);
  if (attributes.back().first == "causal" && std::get<std::string>(attributes.back().second) == "offset") {
    operands.resize(7, nullptr);
    operands[6] = builder.dim_value({*mask.shift}, {});
  }
  Value* result = builder.add("Attention", operands, attributes);
  if (result->type.dtype != weighted->product->result()->type.dtype)
    result = builder.add("Cast", {result}, {{"to", weighted->product->result()->type.dtype}});
  node.graph().replace_uses(weighted->product->result(), result);
  return true;
}

}  // namespace

bool recognise_attention(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
