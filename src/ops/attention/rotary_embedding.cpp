// Rotary position embedding: pairs of elements of each head are rotated by an angle per position.
#include "core/check.h"
#include "core/tensor.h"
#include "ops/attention/import.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem::ops {
namespace {

// How many elements of a head are rotated.
Dim rotated(const OpCall& call) {
  const std::int64_t given = call.attributes.integer("rotary_dim");
  return given == 0 ? call.operand(0).dims[3] : Dim(given);
}

// The dimension of x that counts positions; heads are the other one of 1 and 2.
std::size_t rows_of(const OpCall& call) { return call.attributes.text("order") == "bhsd" ? 2 : 1; }

std::vector<Type> infer(const OpCall& call) {
  const Type& x = require_rank(call, 0, 4, 4);
  same_dtype(call);
  require_dtype(call, 0, is_float, "a float type");
  const Dim size = rotated(call);
  if (!size.exact_divide(2)) fail(ErrorCode::invalid_model, "{} elements of a head are rotated, expected an even number", size.to_string());
  if ((x.dims[3] - size).bounds({}).max < 0)
    fail(ErrorCode::invalid_model, "rotary_dim {} exceeds the head size {}", size.to_string(), x.dims[3].to_string());
  for (const std::size_t i : {1, 2}) {
    const Type& angle = require_rank(call, i, 3, 3);
    const bool batch = angle.dims[0] == Dim(1) || may_be_equal(angle.dims[0], x.dims[0]);
    if (!batch || !may_be_equal(angle.dims[1], x.dims[rows_of(call)]) || !may_be_equal(angle.dims[2], floor_div(size, 2)))
      fail(ErrorCode::invalid_model, "operand {} is {}, expected [{} or 1,{},{}]", i, angle.to_string(), x.dims[0].to_string(),
           x.dims[rows_of(call)].to_string(), floor_div(size, 2).to_string());
  }
  return {x};
}

ShardingRule rule(const OpCall& call) {
  using Role = ShardingRule::Role;
  const Type& x = call.operand(0);
  ShardingRule rule;
  const int batch = rule.add(x.dims[0]), heads = rule.add(x.dims[3 - rows_of(call)]), sequence = rule.add(x.dims[rows_of(call)]);
  const int size = rule.add(x.dims[3], Role::whole), half = rule.add(call.operand(1).dims[2], Role::whole);
  rule.operands = {{{batch}, {heads}, {sequence}, {size}}};
  if (rows_of(call) == 1) std::swap(rule.operands[0][1], rule.operands[0][2]);
  for (const std::size_t i : {1, 2}) {
    rule.operands.push_back({{batch}, {sequence}, {half}});
    if (call.operand(i).dims[0] == Dim(1)) rule.operands.back()[0].clear();
  }
  rule.results = {rule.operands[0]};
  rule.linear = {true, false, false};
  return rule;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const Tensor& x = in[0];
  const std::int64_t heads = x.shape()[3 - rows_of(call)], rows = x.shape()[rows_of(call)];
  const std::int64_t size = x.shape()[3], half = rotated(call).constant() / 2;
  const bool interleaved = call.attributes.boolean("interleaved");
  Tensor y(x.dtype(), x.shape());
  for (std::int64_t line = 0; line < x.shape()[0] * heads * rows; ++line) {
    const std::int64_t b = line / (heads * rows), s = rows_of(call) == 2 ? line % rows : line / heads % rows, base = line * size;
    for (std::int64_t j = 0; j < half; ++j) {
      const auto angle = [&](const Tensor& t) { return t.at(((t.shape()[0] == 1 ? 0 : b) * rows + s) * half + j); };
      const std::int64_t first = base + (interleaved ? 2 * j : j), second = base + (interleaved ? 2 * j + 1 : j + half);
      store_element(y.dtype(), y.mutable_data(), first, x.at(first) * angle(in[1]) - x.at(second) * angle(in[2]));
      store_element(y.dtype(), y.mutable_data(), second, x.at(second) * angle(in[1]) + x.at(first) * angle(in[2]));
    }
    for (std::int64_t j = 2 * half; j < size; ++j) store_element(y.dtype(), y.mutable_data(), base + j, x.at(base + j));
  }
  return {y};
}

}  // namespace

const OpDef RotaryEmbedding = {
    .name = "RotaryEmbedding",
    .doc =
        "Rotates pairs (x₁, x₂) of each head of x [B,H,S,D] to (x₁·cos − x₂·sin, x₂·cos + x₁·sin), with cos and sin [B or 1, S, R/2], R "
        "the rotated elements; pairs are (j, j + R/2), or neighbours if interleaved.",
    .fields = {{"interleaved", FieldKind::boolean, false, {}, "whether pairs are neighbours"},
               {"order", FieldKind::text, std::string("bhsd"), {"bhsd", "bshd"}, "whether heads or positions come first in x"},
               {"rotary_dim", FieldKind::integer, std::int64_t{0}, {}, "rotated elements of a head; 0: all"}},
    .operands = {{"x"}, {"cos"}, {"sin"}},
    .min_operands = 3,
    .max_operands = 3,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{"RotaryEmbedding", 23, attention::import_rotary_embedding}},
};

}  // namespace tandem::ops
