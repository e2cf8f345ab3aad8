#include "build/build.h"

#include <algorithm>
#include <map>
#include <set>

#include "build/choose.h"
#include "build/code.h"
#include "build/edges.h"
#include "core/check.h"
#include "plan/measured.h"

namespace tandem {
namespace {

class ProgramBuilder {
 public:
  // What programs of a plan share.
  struct Shared {
    std::map<std::string, int> weights;  // by name: their number
    std::map<const Node*, const Weight*> constants;
  };

  // Of one of the graph's profiles, or of a graph that has none.
  ProgramBuilder(Module& module, Graph& graph, std::size_t profile, Plan& plan, Shared& shared, const PlanOptions& options)
      : module_(module),
        graph_(graph),
        profile_(profile),
        plan_(plan),
        shared_(shared),
        options_(options),
        chooser_(graph, profile, plan.mesh, options) {}

  Program build() {
    program_.name = graph_.name();
    if (!graph_.profiles.empty()) program_.profiles = {graph_.profiles[profile_]};
    program_.constraints = graph_.constraints;
    for (const auto& input : graph_.inputs()) {
      index_[input.get()] = add_value(*input, PlanValue::Kind::input);
      program_.inputs.push_back(binding(input->name(), input.get()));
    }
    for (const auto& value : graph_.weight_values()) add_weight(value.get(), *value->weight());
    const std::size_t steps = graph_.nodes().size() * std::max<std::size_t>(1, graph_.profiles.size());
    for (std::size_t done = profile_ * graph_.nodes().size(); const auto& node : graph_.nodes()) {
      if (options_.progress) options_.progress(done++, steps);
      add_node(*node);
    }
    for (const auto& output : graph_.outputs()) program_.outputs.push_back(binding(output.name, output.value));
    std::size_t at = 0;
    if (const std::string why = refuse_measured(plan_.device, program_, &at); !why.empty())
      throw Error(ErrorCode::unsupported, why, fmt::format("{} \"{}\"", program_.steps[at].op, program_.steps[at].node));
    find_lifetimes();
    share_memory();
    if (options_.dependent_launch) find_edges(program_);
    return std::move(program_);
  }

 private:
  int add_value(const Value& value, PlanValue::Kind kind) {
    program_.values.push_back({value.name(), kind, value.type});
    program_.values.back().sharding = value.sharding;
    return static_cast<int>(program_.values.size()) - 1;
  }

  Binding binding(const std::string& name, const Value* value) {
    const auto global = graph_.global_types.find(name);
    return {name, index_.at(value), global == graph_.global_types.end() ? value->type : global->second, value->sharding};
  }

  void add_weight(const Value* value, const Weight& weight) {
    const auto [at, fresh] = shared_.weights.try_emplace(weight.name, static_cast<int>(plan_.weights.size()));
    if (fresh) {
      std::set<std::string> symbols;
      weight.recipe->collect_symbols(symbols);
      PlanWeight added{weight.name, weight.recipe->dtype, weight.recipe->shape, weight.recipe, {}, weight.frozen};
      for (const MeshAxis& axis : plan_.mesh.axes())
        if (symbols.contains("@" + axis.name)) added.axes.push_back(axis.name);
      plan_.weights.push_back(std::move(added));
    }
    index_[value] = add_value(*value, PlanValue::Kind::weight);
    program_.values.back().weight = at->second;
  }

  void add_constant(const Node& node) {
    const Weight*& weight = shared_.constants[&node];
    if (!weight) weight = &make_constant(node);
    add_weight(node.result(), *weight);
  }

  const Weight& make_constant(const Node& node) {
    const Tensor& data = node.attributes.get<Tensor>("value");
    std::string name = fmt::format("constant/{}", node.result()->name());
    for (int i = 1; module_.has_source(name); ++i) name = fmt::format("constant/{}.{}", node.result()->name(), i);
    module_.add_source(name, data);
    return module_.add_weight(name, Recipe::from_source(name, data.dtype(), data.shape()), true);
  }

  void add_node(Node& node) {
    if (!node.regions().empty()) throw Error(ErrorCode::unsupported, "control flow cannot be run yet", node.label());
    if (node.is("Constant")) return add_constant(node);
    const int number = static_cast<int>(program_.steps.size());
    if (node.is("Reshape")) {
      index_[node.result()] = add_value(*node.result(), PlanValue::Kind::temporary);
      program_.values.back().alias_of = index_.at(node.operand(0));
      return;
    }
    Choice choice = chooser_.choose(node);
    Step step;
    step.kernel = choice.kernel->name;
    step.microseconds = choice.microseconds;
    step.algorithm = std::move(choice.algorithm);
    step.candidates = std::move(choice.candidates);
    if (options_.sm != 0) add_code(plan_, program_.profiles, *choice.kernel, node.call(), options_.sm);
    step.op = node.op().name;
    step.node = node.name().empty() ? node.result()->name() : node.name();
    step.attributes = node.attributes;
    step.note = node.note;
    step.communicates = communicates(node);
    for (const Value* operand : node.operands()) step.operands.push_back(operand ? index_.at(operand) : -1);
    for (const auto& result : node.results()) {
      index_[result.get()] = add_value(*result, PlanValue::Kind::temporary);
      step.results.push_back(index_[result.get()]);
    }
    if (step.communicates) {
      CollectiveUse use = collective_use(node, plan_.mesh);
      if (choice.kernel->sent_bytes) use.bytes = choice.kernel->sent_bytes(node.call());
      use.program = static_cast<int>(plan_.programs.size());
      use.step = number;
      plan_.collectives.push_back(std::move(use));
    }
    program_.steps.push_back(std::move(step));
  }

  int root(int value) const {
    while (program_.values[static_cast<std::size_t>(value)].alias_of >= 0)
      value = program_.values[static_cast<std::size_t>(value)].alias_of;
    return value;
  }
  PlanValue& root_value(int value) { return program_.values[static_cast<std::size_t>(root(value))]; }

  void find_lifetimes() {
    for (std::size_t s = 0; s < program_.steps.size(); ++s) {
      const int number = static_cast<int>(s);
      for (int result : program_.steps[s].results) root_value(result).first_step = root_value(result).last_step = number;
      for (int operand : program_.steps[s].operands)
        if (operand >= 0) root_value(operand).last_step = number;
    }
    for (const Binding& output : program_.outputs) root_value(output.value).last_step = static_cast<int>(program_.steps.size());
  }

  // Lets the result of an in-place kernel lie in the memory of an operand that dies there.
  void share_memory() {
    for (std::size_t s = 0; s < program_.steps.size(); ++s) {
      const Step& step = program_.steps[s];
      const int place = find_kernel(step.kernel)->in_place_operand;
      if (place < 0 || static_cast<std::size_t>(place) >= step.operands.size() || step.operands[static_cast<std::size_t>(place)] < 0)
        continue;
      const int operand = step.operands[static_cast<std::size_t>(place)];
      PlanValue& from = root_value(operand);
      PlanValue& result = program_.values[static_cast<std::size_t>(step.results[0])];
      const Type& type = program_.values[static_cast<std::size_t>(operand)].type;
      if (from.kind != PlanValue::Kind::temporary || from.last_step != static_cast<int>(s) || result.alias_of >= 0) continue;
      if (type.dims != result.type.dims || bits(type.dtype) != bits(result.type.dtype)) continue;
      // Another operand may not read, through a different view, memory that is being overwritten.
      const auto same_root = [&](int other) { return other >= 0 && other != operand && root(other) == root(operand); };
      if (std::ranges::any_of(step.operands, same_root)) continue;
      from.last_step = result.last_step;
      result.alias_of = operand;
    }
  }

  Module& module_;
  Graph& graph_;
  std::size_t profile_;
  Plan& plan_;
  Shared& shared_;
  const PlanOptions& options_;
  KernelChooser chooser_;
  Program program_;
  std::map<const Value*, int> index_;
};

// Steps that no kernel of the device can run go through the host: right, but slow, so whoever runs the engine is to know.
void tell_of_host_steps(Plan& plan) {
  if (plan.device == "cpu") return;
  std::map<std::string, int> ops;
  for (const Program& program : plan.programs) {  // one for each profile
    std::map<std::string, int> of_program;
    for (const Step& step : program.steps)
      if (find_kernel(step.kernel)->through_host) ++of_program[step.op];
    for (const auto& [op, count] : of_program) ops[op] = std::max(ops[op], count);
  }
  if (ops.empty()) return;
  std::string list;
  for (const auto& [op, count] : ops) list += fmt::format("{}{} {}", list.empty() ? "" : ", ", count, op);
  plan.notices.push_back(
      fmt::format("no kernel of {} can run these steps, which go through the host instead, slowly: {}", plan.device, list));
}

}  // namespace

Plan build_plan(Module& module, const PlanOptions& options) {
  Plan plan;
  plan.tool = "tandem 0.1.0";
  plan.device = options.device;
  plan.mesh = module.mesh;
  plan.strategy = options.strategy;
  plan.refittable = options.refittable;
  plan.exact = options.exact;
  plan.tf32 = options.tf32;
  plan.built_with = options.built_with;
  plan.notices = module.notices;
  ProgramBuilder::Shared shared;
  for (const auto& graph : module.graphs())
    for (std::size_t profile = 0; profile < std::max<std::size_t>(1, graph->profiles.size()); ++profile)
      plan.programs.push_back(ProgramBuilder(module, *graph, profile, plan, shared, options).build());
  tell_of_host_steps(plan);
  return plan;
}

}  // namespace tandem
