// OpDef: everything the compiler knows about one op. The list of ops is src/ops/ops.def.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/attribute.h"
#include "graph/sharding.h"

namespace tandem {

struct OpDef;
struct ForeignNode;
class GraphBuilder;
class Value;
class Node;

// One use of an op, detached from any graph: what inference, kernels and evaluators look at.
// An absent optional operand is std::nullopt. In a *bound* call all Dims are constants.
struct OpCall {
  const OpDef* op = nullptr;
  Attributes attributes;
  std::vector<std::optional<Type>> operands;
  std::vector<Type> results;

  bool has_operand(std::size_t i) const { return i < operands.size() && operands[i].has_value(); }
  const Type& operand(std::size_t i) const;  // throws Error(internal) if absent
  // All Dims of types and attributes replaced by their values.
  OpCall bound(const SymbolValues& values) const;
};

// Integer contents known as Dims (shape arithmetic), row-major; booleans are 0 and 1.
using DimContent = std::vector<Dim>;

// Which factor of the op each dimension consists of: an einsum formula, written per call because Reshape and
// broadcasting depend on extents. Two dimensions that name the same factor are split together or not at all.
struct ShardingRule {
  enum class Role : std::uint8_t {
    parallel,  // may be split freely
    contract,  // may be split; the results are then partial(`reduction`)
    whole,     // must not be split
  };
  struct RuleFactor {
    Dim size;
    Role role = Role::parallel;
    Reduction reduction = Reduction::sum;
  };
  using DimFactors = std::vector<int>;  // indices into `factors`, major first; empty for an extent of 1
  std::vector<RuleFactor> factors;
  std::vector<std::vector<DimFactors>> operands;  // [operand][dim]
  std::vector<std::vector<DimFactors>> results;   // [result][dim]
  // Operands through which a partial(sum) may pass unrepaired because the op is linear in each of them alone.
  std::vector<bool> linear;

  int add(Dim size, Role role = Role::parallel, Reduction reduction = Reduction::sum);
};

// Makes a rule from a formula like "b m k, k n -> b m n": one word per dimension, ',' between operands and results,
// "..." for leading dimensions aligned from the right (extents of 1 broadcast), a letter used only left of the arrow is
// contracted, '!' after a word forbids to split it.
ShardingRule rule_from_formula(std::string_view formula, const OpCall& call);
// Every result dimension pairs with the operand dimensions under numpy broadcasting.
ShardingRule pointwise_rule(const OpCall& call);
// Nothing may be split.
ShardingRule whole_rule(const OpCall& call);

// What an op that shards in its own way asks of its operands, decided from what they are now.
struct ShardingDecision {
  std::vector<Sharding> operands;
  std::vector<Sharding> results;
  std::vector<std::pair<std::string, AttributeValue>> attributes;  // to set on the node
  std::string op;                                                  // another op to put in its place, with these attributes alone
  std::string note;                                                // why, for `inspect`
};

struct OnnxRule {
  std::string_view op_type;
  int since = 1;  // the first opset it understands
  // Adds nodes to the builder's graph and returns one value per output. Throws Error(unsupported | invalid_model).
  std::vector<Value*> (*import)(const ForeignNode&, GraphBuilder&) = nullptr;
  std::string_view domain = "";
};

// What an operand or result is called, and one phrase where the op's sentence does not say what it is.
struct Operand {
  std::string_view name;
  std::string_view doc = "";
};

struct OpDef {
  std::string_view name;
  std::string_view doc;  // one sentence, with the formula
  std::vector<Field> fields{};
  std::vector<Operand> operands{};  // one per operand; a single one where there may be any number
  std::vector<Operand> results = {{"y"}};
  int min_operands = 0;
  int max_operands = 0;  // -1: any number; operands from min_operands on may be absent
  // Result types from operand types and attributes; throws Error(invalid_model) saying what was expected.
  std::vector<Type> (*infer)(const OpCall&) = nullptr;
  // The sharding formula; null means whole_rule.
  ShardingRule (*rule)(const OpCall&) = nullptr;
  // For ops whose sharding is more than a formula (Attention, Gather over a split table); null: use `rule`.
  ShardingDecision (*shard)(const Node&, const std::vector<Sharding>& have, const Mesh&) = nullptr;
  // Rewrites extents in the attributes to local ones, given the shardings decided; null: attributes hold no extents.
  void (*localize)(Node&, const Mesh&) = nullptr;
  // Plain evaluation of a bound call on the host, in double precision where the op is a float op: the oracle and the
  // constant folder. Null for ops that need a Group.
  std::vector<Tensor> (*evaluate)(const OpCall&, std::span<const Tensor>) = nullptr;
  // Contents as Dims, from the operands' contents; std::nullopt where unknown.
  std::optional<DimContent> (*fold)(const OpCall&, std::span<const std::optional<DimContent>>) = nullptr;
  std::vector<OnnxRule> onnx{};
  bool pointwise = false;      // result element i depends on operand elements i (after broadcasting) only
  bool collective = false;     // communicates by itself
  bool reads_contents = true;  // false for ops that only look at the operand's shape (Shape)
};

// The ops a parser or importer may use; lookup by name.
class OpSet {
 public:
  explicit OpSet(std::vector<const OpDef*> ops);
  // Null if there is none.
  const OpDef* find(std::string_view name) const;
  const std::vector<const OpDef*>& all() const { return ops_; }

 private:
  std::vector<const OpDef*> ops_;
};

}  // namespace tandem
