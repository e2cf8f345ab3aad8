#include "ops/attention/import.h"

#include <cmath>

#include "core/check.h"
#include "ops/attention/operands.h"
#include "ops/shape_rules.h"

namespace tandem::attention {
namespace {

// Inputs of the ONNX node.
enum Input : std::size_t { kInputQ, kInputK, kInputV, kInputMask, kInputPastKey, kInputPastValue, kInputKeyLengths };

Value* transpose(GraphBuilder& builder, Value* x) {
  return builder.add("Transpose", {x}, {{"permutation", std::vector<std::int64_t>{0, 2, 1, 3}}});
}

// [B,S,H·D] → [B,H,S,D]
Value* split_heads(GraphBuilder& builder, Value* x, std::int64_t heads) {
  const std::vector<Dim>& dims = x->type.dims;
  const auto size = heads > 0 ? dims[2].exact_divide(heads) : std::nullopt;
  if (!size) fail(ErrorCode::invalid_model, "{} does not consist of {} heads", x->type.to_string(), heads);
  return transpose(builder, builder.add("Reshape", {x}, {{"shape", std::vector<Dim>{dims[0], dims[1], heads, *size}}}));
}

// [B,H,S,D] → [B,S,H·D]
Value* merge_heads(GraphBuilder& builder, Value* x) {
  const std::vector<Dim>& dims = x->type.dims;
  return builder.add("Reshape", {transpose(builder, x)}, {{"shape", std::vector<Dim>{dims[0], dims[2], dims[1] * dims[3]}}});
}

bool wants(const ForeignNode& node, std::size_t output) { return output < node.outputs.size() && !node.outputs[output].empty(); }

void refuse_what_is_missing(const ForeignNode& node) {
  if (wants(node, 3)) fail(ErrorCode::unsupported, "output qk_matmul_output is not supported");
  for (const char* window : {"left_window_size", "right_window_size"})
    if (node.integer(window, -1) >= 0) fail(ErrorCode::unsupported, "attribute {} is not supported", window);
  if (!node.input(kInputPastKey) != !node.input(kInputPastValue)) fail(ErrorCode::invalid_model, "past_key and past_value need each other");
  if (node.input(kInputKeyLengths) && node.input(kInputPastKey))
    fail(ErrorCode::invalid_model, "nonpad_kv_seqlen and past_key exclude each other");
  if (node.input(kInputKeyLengths) && node.integer("is_causal", 0) != 0)
    fail(ErrorCode::unsupported, "is_causal with nonpad_kv_seqlen is not supported");
}

// `nb_rank` is what sharding tools write, `nbRanks` what they document.
std::int64_t ranks_of(const ForeignNode& node) {
  const std::int64_t written = node.integer("nb_rank", 1), documented = node.integer("nbRanks", 1);
  if (node.has("nb_rank") && node.has("nbRanks") && written != documented)
    fail(ErrorCode::invalid_model, "nb_rank is {} and nbRanks is {}", written, documented);
  return std::max(written, documented);
}

void require_extents(GraphBuilder& builder, const Value* q, const Value* k, const Value* v, const Value* mask, bool split) {
  const auto dim = [](const Value* x, std::size_t i) { return x->type.dims[i]; };
  builder.require_equal(dim(k, 0), dim(q, 0));
  builder.require_equal(dim(v, 0), dim(q, 0));
  builder.require_equal(dim(k, 3), dim(q, 3));
  builder.require_equal(dim(v, 1), dim(k, 1));
  builder.require_equal(dim(v, 2), dim(k, 2));
  if (!mask) return;
  if (mask->type.rank() > 4) fail(ErrorCode::invalid_model, "the mask {} has more than 4 dimensions", mask->type.to_string());
  const std::vector<Dim> scores = {dim(q, 0), dim(q, 1), dim(q, 2), dim(k, 2)};
  const std::size_t missing = 4 - mask->type.dims.size();
  for (std::size_t i = 0; i < mask->type.dims.size(); ++i)  // ranks that hold parts of the keys have all columns of the mask
    if (dim(mask, i) != Dim(1) && !(split && i + missing == 3)) builder.require_equal(dim(mask, i), scores[i + missing]);
}

double scale_of(const ForeignNode& node, const Value* q) {
  if (node.has("scale")) return node.real("scale", 1);
  const Dim& size = q->type.dims[3];
  if (!size.is_constant()) fail(ErrorCode::unsupported, "the default scale needs a known head size, not {}", size.to_string());
  return 1 / std::sqrt(static_cast<double>(size.constant()));
}

}  // namespace

std::vector<Value*> import_attention(const ForeignNode& node, GraphBuilder& builder) {
  refuse_what_is_missing(node);
  Value *q = node.required(kInputQ), *k = node.required(kInputK), *v = node.required(kInputV), *mask = node.input(kInputMask);
  const int rank = q->type.rank();
  if ((rank != 3 && rank != 4) || k->type.rank() != rank || v->type.rank() != rank)
    fail(ErrorCode::invalid_model, "q, k, v are {}, {}, {}: expected 3 or 4 dimensions each", q->type.to_string(), k->type.to_string(),
         v->type.to_string());
  if (rank == 3) {
    const std::int64_t heads = node.integer("q_num_heads", 0), kv_heads = node.integer("kv_num_heads", heads);
    q = split_heads(builder, q, heads);
    k = split_heads(builder, k, kv_heads);
    v = split_heads(builder, v, kv_heads);
  }
  Dim past = 0;
  if (Value* past_key = node.input(kInputPastKey)) {
    past = past_key->type.dims.at(2);
    k = builder.add("Concat", {past_key, k}, {{"axis", std::int64_t{2}}});
    v = builder.add("Concat", {node.required(kInputPastValue), v}, {{"axis", std::int64_t{2}}});
  }
  const std::int64_t ranks = ranks_of(node);
  require_extents(builder, q, k, v, mask, ranks > 1);

  std::vector<Value*> operands = {q, k, v, mask, nullptr, node.input(kInputKeyLengths), nullptr};
  std::string causal = "none";
  if (node.integer("is_causal", 0) != 0) {
    // Rows and columns end together in self-attention over a cache.
    causal = past == Dim(0) ? "upper_left" : k->type.dims[2] - q->type.dims[2] == past ? "lower_right" : "offset";
    if (causal == "offset") operands[kPast] = builder.dim_value({past}, {});
  }
  while (!operands.back()) operands.pop_back();
  Value* y = builder.add("Attention", operands,
                         {{"scale", scale_of(node, q)}, {"causal", causal}, {"softcap", node.real("softcap", 0)}, {"num_ranks", ranks}});
  return {rank == 3 ? merge_heads(builder, y) : y, k, v, nullptr};
}

std::vector<Value*> import_rotary_embedding(const ForeignNode& node, GraphBuilder& builder) {
  Value *x = node.required(0), *cos = node.required(1), *sin = node.required(2), *positions = node.input(3);
  const int rank = x->type.rank();
  if (rank == 3) x = split_heads(builder, x, node.integer("num_heads", 0));
  if (positions) {
    cos = builder.add("Gather", {cos, positions}, {{"axis", std::int64_t{0}}});
    sin = builder.add("Gather", {sin, positions}, {{"axis", std::int64_t{0}}});
  }
  for (const Value* angle : {cos, sin}) {
    if (angle->type.rank() != 3 || x->type.rank() != 4)
      fail(ErrorCode::invalid_model, "x and its angles are {} and {}", x->type.to_string(), angle->type.to_string());
    if (angle->type.dims[0] != Dim(1)) builder.require_equal(angle->type.dims[0], x->type.dims[0]);  // exporters leave the batch out
    builder.require_equal(angle->type.dims[1], x->type.dims[2]);
  }
  Value* y = builder.add("RotaryEmbedding", {x, cos, sin},
                         {{"interleaved", node.integer("interleaved", 0) != 0}, {"rotary_dim", node.integer("rotary_embedding_dim", 0)}});
  return {rank == 3 ? merge_heads(builder, y) : y};
}

}  // namespace tandem::attention
