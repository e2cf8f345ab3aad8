// flatten_attention: Attention between transposes to and from [B,H,S,D] becomes FlatAttention, which reads and writes the rows of the
// products around it. A slice of columns in front of it goes too, so that parts of a merged product are read where they lie.
#include <array>

#include "ops/attention/operands.h"
#include "passes/match.h"
#include "passes/passes.h"
#include "passes/pipeline.h"

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

// The product of dimensions `first` and on; nothing if one is not constant.
std::optional<std::int64_t> product_from(const std::vector<Dim>& dims, std::ptrdiff_t first) {
  return product(std::vector<Dim>(dims.begin() + first, dims.end())).value();
}

// That of all but the first two dimensions, if those are `batch` and `rows`.
std::optional<std::int64_t> width_of(const Value* value, const Dim& batch, const Dim& rows) {
  const std::vector<Dim>& dims = value->type.dims;
  if (dims.size() < 3 || dims[0] != batch || dims[1] != rows) return std::nullopt;
  return product_from(dims, 2);
}

// The first column, if `node` takes a range of the third dimension.
std::optional<std::int64_t> sliced_columns(const Node* node) {
  const auto& axes = node->attributes.integers("axes");
  const auto& steps = node->attributes.integers("steps");
  const std::vector<Dim>& dims = node->operand(0)->type.dims;
  const auto rank = static_cast<std::int64_t>(dims.size());
  if (axes.size() != 1 || (axes[0] != 2 && axes[0] + rank != 2) || (!steps.empty() && steps[0] != 1)) return std::nullopt;
  const auto begin = node->attributes.dims("starts")[0].value(), all = dims[2].value(), width = product_from(dims, 3);
  if (!begin || !all || !width) return std::nullopt;
  return (*begin < 0 ? *begin + *all : *begin) * *width;
}

std::optional<Columns> columns_of(Node& attention, Value* operand) {
  Node* transpose = made_by(operand, "Transpose");
  if (!swaps_heads_and_rows(transpose)) return std::nullopt;
  const std::vector<Dim>& dims = transpose->operand(0)->type.dims;  // [B,S,H,D]
  if (!dims[2].is_constant() || !dims[3].is_constant()) return std::nullopt;
  const auto width = [&](const Value* value) { return width_of(value, dims[0], dims[1]); };
  Value* rows = transpose->operand(0);
  if (Node* split = made_by(rows, "Reshape"); split && width(split->operand(0)) == width(rows)) rows = split->operand(0);
  std::int64_t begin = 0;
  if (Node* slice = made_by(rows, "Slice"); slice && width(slice->operand(0)))
    if (const auto first = sliced_columns(slice)) {
      begin = *first;
      rows = slice->operand(0);
    }
  if (rows->type.rank() != 3) {
    GraphBuilder builder = builder_before(attention);
    rows = reshape(builder, rows, {dims[0], dims[1], Dim(*width(rows))});
  }
  return Columns{rows, begin, dims[2].constant(), dims[3].constant()};
}

// Over ranks kernels of GPUs do it, of rows that all count and begin where shapes say.
bool can_be_flat(const Node& node, bool on_gpus) {
  if (node.attributes.integer("num_ranks") == 1) return true;
  const auto absent = [&](std::size_t i) { return node.operands().size() <= i || !node.operand(i); };
  return on_gpus && node.attributes.text("split") == "qkv" && absent(attention::kQueryLengths) && absent(attention::kKeyLengths) &&
         absent(attention::kPast);
}

template <bool kOnGpus>
bool rewrite(Node& node) {
  if (!node.is("Attention") || !can_be_flat(node, kOnGpus)) return false;
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
  for (const char* name : {"causal", "empty_rows", "axis", "split", "layout", "algorithm"})
    attributes.emplace_back(name, node.attributes.text(name));
  for (const char* name : {"extent", "kv_extent"}) attributes.emplace_back(name, node.attributes.dim(name));
  attributes.emplace_back("groups", node.attributes.get<RankLists>("groups"));
  attributes.emplace_back("num_ranks", node.attributes.integer("num_ranks"));
  GraphBuilder builder = builder_before(node);
  Value* flat = builder.add("FlatAttention", operands, attributes);
  flat->producer()->note = node.note;
  Value* split = reshape(builder, flat, back->result()->type.dims);
  split->sharding = back->result()->sharding;
  node.graph().replace_uses(back->result(), split);
  return true;
}

}  // namespace

bool flatten_attention(Module& module, const PassOptions& options) {
  return for_each_node(module, options.device == "cuda" ? rewrite<true> : rewrite<false>);
}

}  // namespace tandem::passes
