// The list of ops as data: what bindings and documents are generated from. Public.
#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "tandem/engine.h"
#include "tandem/types.h"

namespace tandem {

// An extent or an index: a number, or an expression over named symbols such as "B" or "2*S + 1" (docs/graph_text.md has the grammar).
class Extent {
 public:
  template <std::integral T>
  Extent(T value) : text_(std::to_string(value)), value_(static_cast<std::int64_t>(value)) {}
  Extent(const char* expression) : Extent(std::string(expression)) {}
  // Kept in its canonical form. Throws Error(invalid_argument) for what is no expression.
  Extent(const std::string& expression);
  const std::string& text() const { return text_; }
  // The number, if it is one.
  std::optional<std::int64_t> value() const { return value_; }
  bool operator==(const Extent&) const = default;

 private:
  std::string text_;
  std::optional<std::int64_t> value_;
};
using Extents = std::vector<Extent>;
using RankGroups = std::vector<std::vector<std::int64_t>>;

// The value of an attribute. Each kind of attribute takes what says the same: a real an integer, a dim a number or an expression as
// text, dims a list of numbers, a dtype its name, lists of ranks one flat list, which is one group.
using OpAttribute = std::variant<std::int64_t, double, bool, std::string, std::vector<std::int64_t>, Extents, DType, Array, RankGroups>;
using OpAttributes = std::map<std::string, OpAttribute>;

struct OperandInfo {
  std::string name;
  std::string doc;  // empty where the op's sentence says it
  bool optional = false;
};

struct AttributeInfo {
  std::string name;
  std::string kind;  // "integer", "real", "bool", "text", "integers", "dim", "dims", "dtype", "tensor", "lists of ranks"
  OpAttribute initial;
  std::string initial_text;        // as the graph text writes it
  std::vector<std::string> words;  // the values a text may have; empty: any
  std::string doc;
};

struct OpInfo {
  std::string name;    // "LayerNorm", the word in graphs
  std::string method;  // "layer_norm", the word in languages that write methods so
  std::string doc;     // one sentence, with the formula
  std::vector<OperandInfo> operands;
  bool variadic = false;  // any number of operands from the required ones on, all called like the one listed
  std::vector<OperandInfo> results;
  std::vector<AttributeInfo> attributes;
  bool pointwise = false;   // after numpy's broadcasting, element i of the result depends on the elements i of the operands
  bool collective = false;  // all ranks of a group take part
};

// Every op, in the order of the list; made once.
const std::vector<OpInfo>& list_ops();
// Throws Error(invalid_argument) naming the closest names there are.
const OpInfo& op_info(const std::string& name);

}  // namespace tandem
