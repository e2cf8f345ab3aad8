// FlatAttention: attention that reads and writes the layout of the products around it, so that nothing is transposed.
#include "core/check.h"
#include "core/tensor.h"
#include "ops/attention/flat.h"
#include "ops/attention/operands.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem::attention {

FlatHeads flat_heads(const OpCall& call) {
  FlatHeads flat;
  flat.heads = call.attributes.integer("heads");
  flat.kv_heads = call.attributes.integer("kv_heads");
  flat.size = call.attributes.integer("size");
  flat.value_size = call.attributes.integer("value_size");
  const auto& begins = call.attributes.integers("begins");
  if (flat.heads < 1 || flat.kv_heads < 1 || flat.size < 0 || flat.value_size < 0 || flat.heads % flat.kv_heads != 0)
    fail(ErrorCode::invalid_model, "{} heads of {} over {} kv heads with values of {} are no attention", flat.heads, flat.size,
         flat.kv_heads, flat.value_size);
  if (begins.size() != 3) fail(ErrorCode::invalid_model, "{} numbers say where the columns of q, k and v begin, expected 3", begins.size());
  std::copy(begins.begin(), begins.end(), flat.begins.begin());
  return flat;
}

OpCall heads_first(const OpCall& call) {
  const FlatHeads flat = flat_heads(call);
  OpCall inner;
  inner.op = &ops::Attention;
  inner.attributes = Attributes(&inner.op->fields);
  for (const char* name : {"scale", "softcap"}) inner.attributes.set(name, call.attributes.real(name));
  for (const char* name : {"causal", "empty_rows", "axis", "split", "layout", "algorithm"})
    inner.attributes.set(name, call.attributes.text(name));
  for (const char* name : {"extent", "kv_extent"}) inner.attributes.set(name, call.attributes.dim(name));
  inner.attributes.set("groups", call.attributes.get<RankLists>("groups"));
  inner.attributes.set("num_ranks", call.attributes.integer("num_ranks"));
  inner.operands = call.operands;
  for (const std::size_t i : {kQ, kK, kV}) {
    const Type& x = require_rank(call, i, 3, 3);
    const std::int64_t heads = i == kQ ? flat.heads : flat.kv_heads, size = i == kV ? flat.value_size : flat.size;
    const Dim end = Dim(flat.begins[i] + heads * size);
    if (flat.begins[i] < 0 || (x.dims[2].is_constant() && x.dims[2].constant() < end.constant()))
      fail(ErrorCode::invalid_model, "operand {} is {}: columns {} to {} do not lie in it", i, x.to_string(), flat.begins[i],
           end.to_string());
    inner.operands[i] = Type{x.dtype, {x.dims[0], Dim(heads), x.dims[1], Dim(size)}};
  }
  inner.results = inner.op->infer(inner);
  return inner;
}

}  // namespace tandem::attention

namespace tandem::ops {
namespace {

using namespace attention;

std::vector<Type> infer(const OpCall& call) {
  const Type out = heads_first(call).results[0];
  return {{out.dtype, {out.dims[0], out.dims[2], Dim(out.dims[1].constant() * out.dims[3].constant())}}};
}

// Moves every element between [B,S,…heads·size…] and [B,heads,S,size]; `move(flat index, heads-first index)`.
template <typename F>
void each_element(const Shape& heads_first, std::int64_t width, std::int64_t begin, F move) {
  const std::int64_t heads = heads_first[1], rows = heads_first[2], size = heads_first[3];
  for (std::int64_t i = 0; i < element_count(heads_first); ++i) {
    const std::int64_t b = i / (heads * rows * size), h = i / (rows * size) % heads, row = i / size % rows, d = i % size;
    move((b * rows + row) * width + begin + h * size + d, i);
  }
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const OpCall inner = heads_first(call);
  const FlatHeads flat = flat_heads(call);
  std::vector<Tensor> operands(in.begin(), in.end());
  for (const std::size_t i : {kQ, kK, kV}) {
    const Tensor& from = in[i];
    Tensor to(from.dtype(), shape_of(*inner.operands[i]));
    each_element(to.shape(), from.shape()[2], flat.begins[i],
                 [&](std::int64_t at, std::int64_t index) { store_element(to.dtype(), to.mutable_data(), index, from.at(at)); });
    operands[i] = to;
  }
  const Tensor result = Attention.evaluate(inner, operands)[0];
  Tensor out(result.dtype(), shape_of(call.results.at(0)));
  each_element(result.shape(), out.shape()[2], 0,
               [&](std::int64_t at, std::int64_t index) { store_element(out.dtype(), out.mutable_data(), at, result.at(index)); });
  return {out};
}

std::vector<Field> flat_fields() {
  std::vector<Field> all = {
      {"heads", FieldKind::integer, std::int64_t{1}, {}, "Hq"},
      {"kv_heads", FieldKind::integer, std::int64_t{1}, {}, "Hkv"},
      {"size", FieldKind::integer, std::int64_t{1}, {}, "D, of q and k"},
      {"value_size", FieldKind::integer, std::int64_t{1}, {}, "Dv"},
      {"begins", FieldKind::integers, std::vector<std::int64_t>{0, 0, 0}, {}, "the first column of q, k and v in their operands"}};
  for (Field& field : attention::fields()) all.push_back(std::move(field));
  return all;
}

}  // namespace

const OpDef FlatAttention = {
    .name = "FlatAttention",
    .doc =
        "Attention whose q, k and v are columns of [B,S,·], a row's heads beside each other, and whose result is [B,Sq,Hq·Dv]; made by a "
        "pass, "
        "with Attention's operands and meaning. q, k and v may be parts of one value.",
    .fields = flat_fields(),
    .operands = attention::operands(),
    .min_operands = 3,
    .max_operands = 7,
    .infer = infer,
    .evaluate = evaluate,
};

}  // namespace tandem::ops
