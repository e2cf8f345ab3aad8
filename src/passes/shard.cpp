#include "passes/shard.h"

#include <algorithm>

#include "core/check.h"

namespace tandem {
namespace {

using sharding::convert;
using sharding::decide;

// Takes back what a decision writes into a node of the global program, which shard promises not to change.
struct Restored {
  explicit Restored(Node& n) : node(n), attributes(n.attributes) {}
  ~Restored() {
    node.attributes = attributes;
    for (const auto& result : node.results()) result->sharding = {};
  }
  Node& node;
  Attributes attributes;
};

// Builds the local program beside the global one, node by node.
class Rewriter {
 public:
  Rewriter(Graph& global, Graph& local, const sharding::Seeds& seeds, const ShardOptions& options)
      : global_(global), local_(local), seeds_(seeds), mesh_(options.mesh), options_(options) {}

  void run() {
    local_.profiles = global_.profiles;
    local_.constraints = global_.constraints;
    for (const auto& input : global_.inputs()) add_input(*input);
    for (Node* node : global_.node_list()) add_node(*node);
    for (const Graph::Output& output : global_.outputs()) add_output(output);
  }

 private:
  struct Placed {
    Value* value;
    Sharding sharding;
  };

  Sharding seeded(const Value* value) const {
    const auto found = seeds_.values.find(value);
    return found == seeds_.values.end() ? Sharding{} : found->second.normalized(mesh_);
  }

  void add_input(const Value& input) {
    const Sharding s = seeded(&input);
    Value* value = local_.add_input(input.name(), local_type(input.type, s, mesh_));
    value->sharding = s;
    local_.global_types[input.name()] = input.type;
    placed_[&input] = {value, s};
  }

  // Where a value lies now; a weight that nothing asked for yet lies whole, at no cost.
  const Placed& where(const Value* value) {
    const auto found = placed_.find(value);
    if (found != placed_.end()) return found->second;
    check(value->weight() != nullptr, "operands come before their node");
    return placed_[value] = {local_.weight_value(*value->weight()), {}};
  }

  Sharding have(const Value* value) { return !value ? Sharding{} : value->weight() ? seeded(value) : where(value).sharding; }

  Value* placed_as(const Value* value, const Sharding& want, const std::string& why) {
    const Placed now = where(value);
    if (now.sharding == want) return now.value;
    Value*& cached = converted_[{value, want.to_string()}];
    if (cached) return cached;
    cached = convert(local_, now.value, value->type, now.sharding, want, mesh_, why);
    if (cached != now.value && cached->producer()) cached->sharding = want;
    return cached;
  }

  void add_node(Node& node) {
    if (!node.regions().empty()) throw Error(ErrorCode::unsupported, "a node with regions cannot be sharded", node.label());
    const Restored restored(node);
    std::vector<Sharding> now;
    for (const Value* v : node.operands()) now.push_back(have(v));
    ShardingDecision decision = decide_node(node, now);
    std::vector<Value*> operands;
    for (std::size_t i = 0; i < node.operands().size(); ++i) {
      const Value* v = node.operand(i);
      const Sharding want = v ? decision.operands.at(i).normalized(mesh_) : Sharding{};
      operands.push_back(v ? placed_as(v, want, fmt::format("{} needs operand {} as {}", node.label(), i, want.to_string())) : nullptr);
    }
    for (std::size_t i = 0; i < node.results().size(); ++i) node.result(i)->sharding = decision.results.at(i).normalized(mesh_);
    if (node.is("Attention")) sharding::finish_attention(local_, node, operands, mesh_, decision);
    emit(node, operands, decision);
  }

  ShardingDecision decide_node(const Node& node, const std::vector<Sharding>& now) const {
    if (node.is("Attention")) return sharding::decide_attention(node, now, mesh_);
    if (seeds_.appends.contains(&node) && sharding::appends_to_blocks(node, now)) return sharding::decide_append(node, now, mesh_);
    return decide(node, now, mesh_);
  }

  // The attributes of the local node.
  NamedAttributes attributes_of(Node& node, const ShardingDecision& decision) const {
    if (!decision.op.empty()) return decision.attributes;
    for (const auto& [name, value] : decision.attributes) node.attributes.set(name, value);
    if (node.op().localize) node.op().localize(node, mesh_);
    NamedAttributes attributes;
    for (std::size_t i = 0; i < node.op().fields.size(); ++i)
      attributes.emplace_back(node.op().fields[i].name, node.attributes.values()[i]);
    return attributes;
  }

  void emit(Node& node, const std::vector<Value*>& operands, const ShardingDecision& decision) {
    const NamedAttributes attributes = attributes_of(node, decision);
    std::vector<std::string> names;
    for (const auto& r : node.results()) names.push_back(r->name());
    const OpDef& op = decision.op.empty() ? node.op() : local_.module().op(decision.op);
    Node* added = local_.add(op, operands, attributes, node.name(), names);
    added->note = decision.note.empty() ? node.note : decision.note;
    for (std::size_t i = 0; i < node.results().size(); ++i) {
      const Value* result = node.result(i);
      const Type expected = local_type(result->type, result->sharding, mesh_);
      if (added->result(i)->type != expected)
        throw Error(ErrorCode::internal,
                    fmt::format("sharded as {} its result is {}, expected {}", result->sharding.to_string(),
                                added->result(i)->type.to_string(), expected.to_string()),
                    node.label());
      added->result(i)->sharding = result->sharding;
      placed_[result] = {added->result(i), result->sharding};
      place_result(*result);
    }
  }

  // A result that was given a place goes there at once, and is taken from there.
  void place_result(const Value& result) {
    const auto given = options_.io.find(result.name());
    if (given == options_.io.end()) return;
    const Sharding want = sharding::parse_placement(result.name(), given->second, result.type, mesh_);
    Value* value = placed_as(&result, want, fmt::format("'{}' is placed", result.name()));
    value->sharding = want;
    placed_[&result] = {value, want};
  }

  // Split by batch or sequence an output stays; otherwise every rank gets the whole of it, but for caches that come in split by
  // heads and go out alike.
  Sharding output_sharding(const Value& output) {
    Sharding out = have(&output);
    out.partial.clear();
    for (std::size_t d = 0; d < out.dims.size(); ++d)
      for (Factor& f : out.dims[d])
        std::erase_if(f.axes,
                      [&](const std::string& axis) { return strategy(axis) == "tp" && !(is_cache(output.type, d) && caches_split(axis)); });
    return out.normalized(mesh_);
  }

  const std::string& strategy(const std::string& axis) const {
    const auto named = options_.strategies.find(axis);
    return named == options_.strategies.end() ? axis : named->second;
  }

  // [batch, heads, sequence, size], by heads.
  static bool is_cache(const Type& type, std::size_t dim) { return dim == 1 && type.rank() == 4; }

  bool caches_split(const std::string& axis) const {
    return std::ranges::any_of(local_.inputs(), [&](const auto& i) { return i->sharding.split_dim(axis) == 1 && is_cache(i->type, 1); });
  }

  void add_output(const Graph::Output& output) {
    const auto given = options_.io.find(output.name);
    const Sharding want = given == options_.io.end() ? output_sharding(*output.value)
                                                     : sharding::parse_placement(output.name, given->second, output.value->type, mesh_);
    Value* value = placed_as(output.value, want, fmt::format("output '{}'", output.name));
    value->sharding = want;
    local_.outputs().push_back({output.name, value});
    local_.global_types[output.name] = output.value->type;
  }

  Graph& global_;
  Graph& local_;
  const sharding::Seeds& seeds_;
  const Mesh& mesh_;
  const ShardOptions& options_;
  std::map<const Value*, Placed> placed_;
  std::map<std::pair<const Value*, std::string>, Value*> converted_;
};

}  // namespace

bool shard(Module& module, const ShardOptions& options) {
  std::vector<std::string> notices;
  sharding::check_given(module, options, notices);
  if (options.mesh.size() == 1) {
    module.mesh = options.mesh;
    return false;
  }
  for (const auto& graph : module.graphs())
    for (const auto& node : graph->nodes())
      if (node->op().collective || (node->attributes.has("num_ranks") && node->attributes.integer("num_ranks") > 1))
        throw Error(ErrorCode::unsupported, "the model is sharded already; run it with --ranks and no mesh", node->label());
  std::vector<std::pair<Graph*, std::unique_ptr<Graph>>> fresh;
  try {
    for (const auto& graph : module.graphs()) {
      const sharding::Seeds seeds = sharding::seed(*graph, options);
      notices.insert(notices.end(), seeds.notices.begin(), seeds.notices.end());
      auto local = module.detached_graph(graph->name());
      Rewriter(*graph, *local, seeds, options).run();
      fresh.emplace_back(graph.get(), std::move(local));
    }
  } catch (...) {
    fresh.clear();
    module.erase_unused_weights();  // slices made so far
    throw;
  }
  for (auto& [old, local] : fresh) {
    local->erase_dead();
    module.replace(*old, std::move(local));
  }
  module.notices.insert(module.notices.end(), notices.begin(), notices.end());
  module.mesh = options.mesh;
  module.erase_unused_weights();
  return true;
}

}  // namespace tandem
