#include "plan/random_plan.h"

#include <algorithm>
#include <map>

#include "core/check.h"

namespace tandem::testing {
namespace {

PlanWeight plan_weight(const Weight& weight, const Mesh& mesh) {
  PlanWeight w{weight.name, weight.recipe->dtype, weight.recipe->shape, weight.recipe, {}, weight.frozen};
  std::set<std::string> symbols;
  weight.recipe->collect_symbols(symbols);
  for (const MeshAxis& a : mesh.axes())
    if (symbols.contains("@" + a.name)) w.axes.push_back(a.name);
  return w;
}

Program program_of(const Graph& graph, Random& random) {
  Program p;
  p.name = graph.name();
  p.profiles = graph.profiles;
  p.constraints = graph.constraints;
  std::map<const Value*, int> index;
  const auto add = [&](const Value& v, PlanValue::Kind kind) {
    index[&v] = static_cast<int>(p.values.size());
    p.values.push_back({v.name(), kind, v.type});
    p.values.back().sharding = v.sharding;
    return index[&v];
  };
  for (const auto& v : graph.inputs()) p.inputs.push_back({v->name(), add(*v, PlanValue::Kind::input), v->type, v->sharding});
  for (const auto& v : graph.weight_values()) {
    const auto& weights = graph.module().weights();
    const auto found = std::ranges::find(weights, v->weight(), [](const auto& w) { return w.get(); });
    p.values[static_cast<std::size_t>(add(*v, PlanValue::Kind::weight))].weight = static_cast<int>(found - weights.begin());
  }
  for (const auto& n : graph.nodes()) {
    Step s{"plain", std::string(n->op().name), n->name(), n->attributes};
    s.note = n->note;
    s.microseconds = random.below(1000) / 7.0;
    s.communicates = random.chance(10);
    if (random.chance(20)) s.algorithm = random.name();
    for (const Value* v : n->operands()) s.operands.push_back(v ? index.at(v) : -1);
    for (const auto& v : n->results()) {
      s.results.push_back(add(*v, PlanValue::Kind::temporary));
      p.values.back().first_step = p.values.back().last_step = static_cast<int>(p.steps.size());
    }
    p.steps.push_back(std::move(s));
    if (random.chance(20) && !p.values.empty()) {
      PlanValue alias = p.values.back();
      alias.kind = PlanValue::Kind::temporary;
      alias.weight = alias.first_step = alias.last_step = -1;
      alias.alias_of = static_cast<int>(p.values.size()) - 1;
      p.values.push_back(std::move(alias));
    }
  }
  for (std::size_t s = 1; s < p.steps.size(); ++s) {
    Step& step = p.steps[s];
    step.starts_early = !step.communicates && !p.steps[s - 1].communicates && random.chance(40);
    for (std::size_t i = 0; step.starts_early && i < step.operands.size(); ++i)
      if (step.operands[i] >= 0 && p.values[static_cast<std::size_t>(step.operands[i])].kind == PlanValue::Kind::weight &&
          random.chance(50))
        step.resident.push_back(static_cast<int>(i));
  }
  for (const Graph::Output& o : graph.outputs()) p.outputs.push_back({o.name, index.at(o.value), o.value->type, o.value->sharding});
  return p;
}

}  // namespace

std::optional<Plan> random_plan(std::uint64_t seed) {
  const auto module = random_module(seed, small_ops(), true);
  try {
    verify(*module);
  } catch (const Error&) {
    return std::nullopt;
  }
  Random random(seed + 1);
  Plan plan;
  plan.tool = random.name();
  plan.mesh = module->mesh;
  if (!plan.mesh.has("tp")) {
    auto axes = plan.mesh.axes();
    axes.push_back({"tp", 1 + random.below(3)});
    plan.mesh = Mesh(axes);
  }
  plan.strategy = random.name();
  plan.refittable = random.chance(50);
  plan.exact = random.chance(50);
  plan.tf32 = random.chance(50);
  if (random.chance(50)) plan.features = {"avx2", random.name()};
  plan.notices = module->notices;
  plan.built_with = {{"onednn", "2.7"}, {random.name(), random.name()}};
  for (const auto& w : module->weights()) plan.weights.push_back(plan_weight(*w, plan.mesh));
  for (const auto& g : module->graphs()) plan.programs.push_back(program_of(*g, random));
  for (std::size_t p = 0; p < plan.programs.size(); ++p)
    if (!plan.programs[p].steps.empty())
      plan.collectives.push_back({static_cast<int>(p), 0, "all_reduce", "sum", random.dtype(), random.dim(), random.chance(50) ? "tp" : "",
                                  random.chance(50) ? RankLists{{0}} : RankLists{}, random.below(3) - 1, random.dim()});
  return plan;
}

Plan small_plan() {
  Module module(small_ops());
  module.mesh = Mesh({{"tp", 2}});
  const RecipePtr source = Recipe::from_source("q.weight", DType::f32, {64, 48});
  const Weight& whole = module.add_weight("norm", Recipe::from_source("norm.weight", DType::f16, {48}));
  const Weight& split = module.add_weight("q", Recipe::slice(source, 0, Dim::symbol("@tp") * Dim(32), 32));
  const Weight& frozen = module.add_weight("table", Recipe::from_source("constant/table", DType::i64, {5}), true);
  const Weight& packed = module.add_weight("packed", Recipe::from_source("packed.weight", DType::i4, {3, 2}));
  const Weight& big = module.add_weight("big", Recipe::from_source("big.weight", DType::f32, {200, 100}));
  Graph& graph = module.add_graph("main");
  graph.profiles.push_back({{"B", {1, 8, 64}}});
  Value* x = graph.add_input("x", {DType::f32, {Dim::symbol("B"), 64}});
  std::vector<Value*> operands = {x};
  for (const Weight* w : {&whole, &split, &frozen, &packed, &big}) operands.push_back(graph.weight_value(*w));
  Node* every = graph.add(*small_ops().find("Every"), operands, {{"shape", std::vector<Dim>{Dim::symbol("B"), 48}}}, "layer/q", {"y"});
  graph.outputs().push_back({"embedding", every->result()});
  every->result()->sharding.partial = {{"tp", Reduction::sum}};
  Random random(1);
  Plan plan;
  plan.tool = "tandem 0.1.0";
  plan.mesh = module.mesh;
  plan.strategy = "tp=2";
  for (const auto& w : module.weights()) plan.weights.push_back(plan_weight(*w, plan.mesh));
  plan.programs.push_back(program_of(graph, random));
  return plan;
}

Tensor small_slice(const PlanWeight& weight, int rank) {
  Tensor t(weight.dtype, weight.shape);
  const auto salt = static_cast<std::size_t>(weight.axes.empty() ? 0 : 100 * rank) + weight.name.size();
  for (std::size_t i = 0; i < t.size_bytes(); ++i) t.mutable_data()[i] = static_cast<std::byte>((i * 7 + salt) & 0x3f);
  return t;
}

}  // namespace tandem::testing
