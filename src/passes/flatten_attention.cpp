// flatten_attention: Attention between transposes to and from [B,H,S,D] becomes FlatAttention, which reads and writes the rows of the
// products around it. A slice of columns in front of it goes too, so that parts of a merged product are read where they lie.
#include <array>

#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

bool swaps_heads_and_rows(const Node* node) {
  return node && node->attributes.integers("permutation") == std::vector<std::int64_t>{0, 2, 1, 3};
}

// Columns begin … of a value [B,S,·] hold one row's heads beside each other.
struct Columns {
  Value* rows = nullptr;
  std::int64_t begin = 0, heads = 0, size = 0;
};

// The first column, if `node` takes a range of them.
std::optional<std::int64_t> sliced_columns(const Node* node) {
  if (!node) return std::nullopt;
  const auto& axes = node->attributes.integers("axes");
  const auto& steps = node->attributes.integers("steps");
  const int last = node->operand(0)->type.rank() - 1;
  if (axes.size() != 1 || (axes[0] != last && axes[0] != -1) || (!steps.empty() && steps[0] != 1)) return std::nullopt;
  const auto begin = node->attributes.dims("starts")[0].value(), all = last_dim(node->operand(0))->value();
  if (!begin || !all) return std::nullopt;
  return *begin < 0 ? *begin + *all : *begin;
}

std::optional<Columns> columns_of(Node& attention, Value* operand) {
  Node* transpose = made_by(operand, "Transpose");
  if (!swaps_heads_and_rows(transpose)) return std::nullopt;
  const std::vector<Dim>& dims = transpose->operand(0)->type.dims;  // [B,S,H,D]
  if (!dims[2].is_constant() || !dims[3].is_constant()) return std::nullopt;
  const std::vector<Dim> flat = {dims[0], dims[1], dims[2] * dims[3]};
  Value* rows = transpose->operand(0);
  if (Node* split = made_by(rows, "Reshape"); split && split->operand(0)->type.dims == flat) rows = split->operand(0);
  std::int64_t begin = 0;
  if (Node* slice = made_by(rows, "Slice"); slice && slice->operand(0)->type.rank() == 3)
    if (const auto first = sliced_columns(slice)) {
      begin = *first;
      rows = slice->operand(0);
    }
  if (rows->type.rank() != 3) {
    GraphBuilder builder = builder_before(attention);
    rows = reshape(builder, rows, flat);
  }
  return Columns{rows, begin, dims[2].constant(), dims[3].constant()};
}

bool rewrite(Node& node) {
  if (!node.is("Attention") || node.attributes.integer("num_ranks") != 1) return false;
  Node* back = only_user(node.result(), "Transpose");
  if (!swaps_heads_and_rows(back)) return false;
  for (std::size_t i = 0; i < 3; ++i)
    if (!columns_of(node, node.operand(i))) return false;
  std::array<Columns, 3> parts;
  for (std::size_t i = 0; i < 3; ++i) parts[i] = *columns_of(node, node.operand(i));
  std::vector<Value*> operands = node.operands();
  for (std::size_t i = 0; i < 3; ++i) operands[i] = parts[i].rows;
  NamedAttributes attributes = {{"heads", parts[0].heads},
                                {"kv_heads", parts[1].heads},
                                {"size", parts[0].size},
                                {"value_size", parts[2].size},
                                {"begins", std::vector<std::int64_t>{parts[0].begin, parts[1].begin, parts[2].begin}}};
  for (const char* name : {"scale", "softcap"}) attributes.emplace_back(name, node.attributes.real(name));
  for (const char* name : {"causal", "empty_rows"}) attributes.emplace_back(name, node.attributes.text(name));
  GraphBuilder builder = builder_before(node);
  Value* flat = builder.add("FlatAttention", operands, attributes);
  flat->producer()->note = node.note;
  Value* split = reshape(builder, flat, back->result()->type.dims);
  split->sharding = back->result()->sharding;
  node.graph().replace_uses(back->result(), split);
  return true;
}

}  // namespace

bool flatten_attention(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
