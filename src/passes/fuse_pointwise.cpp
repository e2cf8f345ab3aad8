// fuse_pointwise: element-wise nodes over the same elements become one Pointwise node, so that what lies between them is never
// written to memory. A value somebody else reads, or one that another node broadcasts, stays: nothing is computed twice.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "ops/pointwise/program.h"
#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

using pointwise::Argument;
using pointwise::Program;
using pointwise::Statement;

constexpr std::size_t kLongest = 48;  // operands, statements and numbers of a program

// What a node does, as statements over its operands.
std::optional<Program> program_of(const Node& node) {
  if (!node.op().pointwise || node.results().size() != 1 || node.op().collective) return std::nullopt;
  if (node.is("Pointwise")) return Program::parse(node.attributes.text("program"));
  auto statement = pointwise::statement_for(node.op().name, node.attributes);
  if (!statement) return std::nullopt;
  return Program{{*statement}};
}

// A kernel takes blocks of these; and a part of a sum must first be added up.
bool fits(const Value* value) {
  if (!value) return false;
  const DType type = value->type.dtype;
  const bool small = is_float(type) ? type == DType::f32 || type == DType::f16 || type == DType::bf16
                                    : type == DType::boolean || (is_integer(type) && bits(type) >= 8 && type != DType::u64);
  return small && value->sharding.partial.empty();
}

bool fusable(const Node& node) { return program_of(node) && fits(node.result()) && std::ranges::all_of(node.operands(), fits); }

using Region = std::set<const Node*>;

// The root and every node before it that only nodes of the region read.
Region region_of(const Node& root) {
  Region region = {&root};
  std::vector<const Node*> open = {&root};
  while (!open.empty()) {
    bool grew = false;
    for (const Node* node : open)
      for (const Value* v : node->operands()) {
        const Node* producer = v->producer();
        if (!producer || region.contains(producer) || v->type.dims != root.result()->type.dims || root.graph().is_output(v)) continue;
        const bool ours = std::ranges::all_of(v->uses(), [&](const Use& use) { return region.contains(use.node); });
        if (ours && fusable(*producer)) grew |= region.insert(producer).second;
      }
    open.clear();
    if (grew) open.assign(region.begin(), region.end());
  }
  return region;
}

// The number that a constant of one element stands for, where the program may hold it as text.
std::optional<double> number_in(const Value* value) {
  if (!made_by(value, "Constant") || value->type.dims != std::vector<Dim>(value->type.dims.size(), Dim(1))) return std::nullopt;
  const auto number = number_of(value);
  const bool exact = number && (is_float(value->type.dtype) || std::abs(*number) <= 9007199254740992.0);
  return exact ? number : std::nullopt;
}

// Writes the statements of a region's nodes in order.
class Writer {
 public:
  void add(const Node& node) {
    const Program part = *program_of(node);
    std::map<int, int> renamed;
    for (std::size_t i = 0; i < part.statements.size(); ++i) {
      Statement statement = part.statements[i];
      const int first = node.is("Where") ? 1 : 0;  // the condition stays
      const bool numbers = may_hold_numbers(node, static_cast<std::size_t>(first));
      for (Argument& a : statement.arguments) {
        if (a.kind == Argument::Kind::operand) a = argument(node.operand(static_cast<std::size_t>(a.index)), numbers && a.index >= first);
        else if (a.kind == Argument::Kind::temporary) a.index = renamed.at(a.index);
        size_ += a.kind == Argument::Kind::number ? 1 : 0;
      }
      renamed[static_cast<int>(i)] = static_cast<int>(program_.statements.size());
      program_.statements.push_back(std::move(statement));
    }
    made_[node.result()] = static_cast<int>(program_.statements.size()) - 1;
  }

  const Program& program() const { return program_; }
  const std::vector<Value*>& operands() const { return operands_; }
  std::size_t size() const { return size_ + operands_.size() + program_.statements.size(); }

 private:
  // A number takes the dtype of the values beside it, so one of them must stay.
  static bool may_hold_numbers(const Node& node, std::size_t first) {
    bool value = false;
    for (std::size_t i = first; i < node.operands().size(); ++i) value |= !number_in(node.operand(i));
    return value && !node.is("Pointwise");
  }

  Argument argument(Value* value, bool numbers) {
    if (const auto made = made_.find(value); made != made_.end()) return Argument::temporary(made->second);
    if (const auto number = numbers ? number_in(value) : std::nullopt) return Argument::literal(*number);
    const auto at = std::ranges::find(operands_, value);
    if (at == operands_.end()) operands_.push_back(value);
    return Argument::operand(static_cast<int>(std::ranges::find(operands_, value) - operands_.begin()));
  }

  Program program_;
  std::vector<Value*> operands_;
  std::map<const Value*, int> made_;
  std::size_t size_ = 0;
};

bool fuse(Node& root) {
  if (!fusable(root)) return false;
  const Region region = region_of(root);
  if (region.size() < 2) return false;
  Writer writer;
  for (const auto& node : root.graph().nodes())
    if (region.contains(node.get())) writer.add(*node);
  if (writer.size() > kLongest || writer.operands().empty()) return false;
  Value* fused = builder_before(root).add("Pointwise", writer.operands(), {{"program", writer.program().to_string()}});
  if (fused->type != root.result()->type) return false;  // every operand with all the dimensions became a number
  fused->sharding = root.result()->sharding;
  fused->producer()->note = root.note;
  root.graph().replace_uses(root.result(), fused);
  return true;
}

// From the last node to the first, so that a root is the end of its chain.
bool fuse_graph(Graph& graph) {
  bool changed = false;
  std::vector<Node*> nodes = graph.node_list();
  for (std::size_t i = nodes.size(); i-- > 0;)
    if (!nodes[i]->result(0)->uses().empty() || graph.is_output(nodes[i]->result(0))) changed |= fuse(*nodes[i]);
  if (changed) graph.erase_dead();
  return changed;
}

}  // namespace

bool fuse_pointwise(Module& module, const PassOptions&) { return for_each_graph(module, fuse_graph); }

}  // namespace tandem::passes
