// Attention over the mesh: heads and batch follow the formula; a split sequence becomes one exchange inside the node.
#include <algorithm>

#include "core/check.h"
#include "passes/shard.h"

namespace tandem::sharding {
namespace {

constexpr int kHeads = 1, kSequence = 2;

const DimSharding& sequence_of(const Sharding& s) { return s.dim(kSequence); }

// The single axis that splits k and v along the sequence, and q either alike or not at all; empty if there is none.
std::string exchange_axis(const std::vector<Sharding>& have) {
  const DimSharding &q = sequence_of(have[0]), &k = sequence_of(have[1]), &v = sequence_of(have[2]);
  if (k.size() != 1 || v.size() != 1 || k[0].axes.size() != 1 || k[0].axes != v[0].axes) return {};
  const std::string& axis = k[0].axes[0];
  const bool alike = q.size() == 1 && q[0].axes == k[0].axes;
  return alike || !have[0].mentions(axis) ? axis : std::string();
}

// The axis that splits q heads more finely than there are kv heads.
std::string repeated_heads_axis(const Node& node, const Sharding& q, const Mesh& mesh) {
  const DimSharding& heads = q.dim(kHeads);
  const auto kv = node.operand(1)->type.dims[kHeads].value();
  if (heads.empty() || heads[0].axes.size() != 1 || !kv) return {};
  const int n = mesh.size(heads[0].axes[0]);
  return *kv % n != 0 && n % *kv == 0 ? heads[0].axes[0] : std::string();
}

void set_sequence(Sharding& s, int rank, int dim, const DimSharding& sequence) {
  s.dims.resize(static_cast<std::size_t>(rank));
  s.dims[static_cast<std::size_t>(dim)] = sequence;
}

}  // namespace

ShardingDecision decide_attention(const Node& node, std::vector<Sharding> have, const Mesh& mesh) {
  const std::string axis = exchange_axis(have), repeated = repeated_heads_axis(node, have[0], mesh);
  const DimSharding kv_sequence = sequence_of(have[1]);
  const bool rows = have[0].mentions(axis);
  if (!axis.empty() && !rows)
    for (std::size_t i = 3; i < have.size(); ++i) have[i] = gathered(have[i], axis);
  DimSharding q_heads;
  if (!repeated.empty()) {
    q_heads = have[0].dim(kHeads);
    for (Sharding& s : have) s = gathered(s, repeated);  // kv heads are picked from the whole
  }
  ShardingDecision decision = decide(node, have, mesh);
  if (!axis.empty()) {
    for (int i : {1, 2}) set_sequence(decision.operands[static_cast<std::size_t>(i)], 4, kSequence, kv_sequence);
    decision.attributes = {
        {"num_ranks", std::int64_t{mesh.size(axis)}}, {"axis", axis}, {"kv_extent", node.operand(1)->type.dims[kSequence]}};
    if (rows) decision.attributes.emplace_back("extent", node.operand(0)->type.dims[kSequence]);
    else decision.attributes.emplace_back("split", std::string("kv"));
    decision.note = rows ? fmt::format("the sequence is split over {}: k and v are exchanged inside", axis)
                         : fmt::format("k and v are split over {}, q is not: partial results are merged inside", axis);
  }
  if (!repeated.empty()) {
    set_sequence(decision.operands[0], 4, kHeads, q_heads);
    set_sequence(decision.results[0], 4, kHeads, q_heads);
    const Value* mask = node.operand(3);
    if (mask && mask->type.rank() == 4 && mask->type.dims[kHeads] != Dim(1)) set_sequence(decision.operands[3], 4, kHeads, q_heads);
    decision.note += (decision.note.empty() ? "" : "; ") + fmt::format("kv heads are repeated over {}", repeated);
  }
  return decision;
}

namespace {

Value* add(Graph& local, const Node& node, std::string_view op, std::vector<Value*> operands, const NamedAttributes& attributes) {
  return local.add(local.module().op(op), std::move(operands), attributes, node.name())->result();
}

// Rows of q are a block of the sequence but k is whole: the causal diagonal moves by the block's start.
void shift_causal(Graph& local, Node& node, std::vector<Value*>& operands, const Mesh& mesh, ShardingDecision& decision) {
  const DimSharding& rows = node.result()->sharding.dim(kSequence);
  const std::string& causal = node.attributes.text("causal");
  if (rows.empty() || causal == "none") return;
  const Dim block = ceil_div(rows[0].size, split_count(rows[0], mesh));
  Dim start = split_index(rows[0], mesh) * block;
  if (causal == "lower_right") start = start + node.operand(1)->type.dims[kSequence] - node.operand(0)->type.dims[kSequence];
  Value* past = add(local, node, "DimValue", {}, {{"values", std::vector<Dim>{start}}, {"shape", Shape{}}, {"dtype", DType::i64}});
  operands.resize(std::max<std::size_t>(operands.size(), 7), nullptr);
  if (causal == "offset" && operands[6]) past = add(local, node, "Add", {past, operands[6]}, {});
  operands[6] = past;
  decision.attributes.emplace_back("causal", std::string("offset"));
}

}  // namespace

void finish_attention(Graph& local, Node& node, std::vector<Value*>& operands, const Mesh& mesh, ShardingDecision& decision) {
  const bool rows_counted = std::ranges::any_of(decision.attributes, [](const auto& a) { return a.first == "extent"; });
  if (!rows_counted) shift_causal(local, node, operands, mesh, decision);
  const DimSharding& heads = node.result()->sharding.dim(kHeads);
  const auto kv = node.operand(1)->type.dims[kHeads].value();
  if (heads.empty() || !kv || decision.operands[1].is_split(kHeads)) return;
  const int n = split_count(heads[0], mesh);
  if (n <= *kv || n % *kv != 0) return;
  for (const std::size_t i : {std::size_t{1}, std::size_t{2}})
    operands[i] = add(local, node, "ShardSlice", {operands[i]},
                      {{"dim", std::int64_t{kHeads}}, {"begin", floor_div(split_index(heads[0], mesh), Dim(n / *kv))}, {"length", Dim(1)}});
}

}  // namespace tandem::sharding
