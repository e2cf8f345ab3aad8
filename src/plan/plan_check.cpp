#include "plan/plan_check.h"

#include <algorithm>
#include <set>

#include "core/check.h"
#include "plan/measured.h"

namespace tandem {
namespace {

template <typename... Args>
void require(bool holds, fmt::format_string<Args...> format, Args&&... args) {
  if (!holds) fail(ErrorCode::invalid_engine, format, std::forward<Args>(args)...);
}

// A sharding of a value of `rank` dimensions: known axes, each at most once.
void check_sharding(const Sharding& s, std::size_t rank, const Mesh& mesh, const std::string& name) {
  require(s.dims.empty() || s.dims.size() == rank, "'{}': a sharding of {} dimensions, expected {}", name, s.dims.size(), rank);
  std::set<std::string_view> seen;
  const auto use = [&](const std::string& axis) {
    require(mesh.has(axis) && seen.insert(axis).second, "'{}': sharding {} and mesh ({}) do not fit", name, s.to_string(),
            mesh.to_string());
  };
  for (const DimSharding& d : s.dims)
    for (const Factor& f : d)
      for (const std::string& axis : f.axes) use(axis);
  for (const Partial& p : s.partial) use(p.axis);
  for (const std::string& axis : s.varying) use(axis);
}

class ProgramCheck {
 public:
  ProgramCheck(const Plan& plan, const Program& program, const OpSet& ops) : plan_(plan), program_(program), ops_(ops) {}

  void run() {
    values();
    for (std::size_t s = 0; s < program_.steps.size(); ++s) step(s);
    bindings(program_.inputs, "input");
    bindings(program_.outputs, "output");
    for (const Binding& o : program_.outputs) require(is_written(o.value), "output '{}' is never written", o.name);
    for (const Profile& p : program_.profiles)
      for (const auto& [symbol, r] : p)
        require(0 <= r.min && r.min <= r.opt && r.opt <= r.max, "symbol '{}' ranges over {}:{}:{}", symbol, r.min, r.opt, r.max);
    measured();
  }

 private:
  const PlanValue& value(int index, std::string_view what) const {
    require(index >= 0 && static_cast<std::size_t>(index) < program_.values.size(), "{}: value {} of {}", what, index,
            program_.values.size());
    return program_.values[static_cast<std::size_t>(index)];
  }

  int root(int index) const { return root_[static_cast<std::size_t>(index)]; }

  void values() {
    const auto steps = static_cast<int>(program_.steps.size());
    for (std::size_t i = 0; i < program_.values.size(); ++i) {
      const PlanValue& v = program_.values[i];
      const bool weight = v.kind == PlanValue::Kind::weight;
      require(weight == (v.weight >= 0) && v.weight < static_cast<int>(plan_.weights.size()), "value '{}': weight {} of {}", v.name,
              v.weight, plan_.weights.size());
      // Aliases point backwards, so that following them ends.
      require(v.alias_of >= -1 && v.alias_of < static_cast<int>(i), "value '{}' (number {}) is an alias of number {}", v.name, i,
              v.alias_of);
      require(v.alias_of < 0 || v.kind == PlanValue::Kind::temporary, "value '{}' is an alias, expected a temporary", v.name);
      require(v.first_step >= -1 && v.first_step < std::max(steps, 1) && v.last_step >= -1 && v.last_step <= steps &&
                  v.first_step <= v.last_step,
              "value '{}' lives from step {} to {} of {}", v.name, v.first_step, v.last_step, steps);
      for (const Dim& d : v.type.dims) require(!d.is_constant() || d.constant() >= 0, "value '{}' is {}", v.name, v.type.to_string());
      check_sharding(v.sharding, v.type.dims.size(), plan_.mesh, v.name);
      if (weight) weight_type(v);
      if (v.alias_of >= 0) alias(v);
      written_.push_back(v.kind != PlanValue::Kind::temporary);
      root_.push_back(v.alias_of < 0 ? static_cast<int>(i) : root(v.alias_of));
      written_by_.push_back(-1);
    }
  }

  void weight_type(const PlanValue& v) const {
    const PlanWeight& w = plan_.weights[static_cast<std::size_t>(v.weight)];
    const Type expected{w.dtype, std::vector<Dim>(w.shape.begin(), w.shape.end())};
    require(v.type == expected, "value '{}' is {}, its weight is {}", v.name, v.type.to_string(), expected.to_string());
  }

  // Extents that hold symbols may need a constraint to agree; the runtime compares them once they are bound.
  void alias(const PlanValue& v) const {
    const Type& of = value(v.alias_of, "alias").type;
    const auto is_number = [](const Dim& d) { return d.is_constant(); };
    if (v.type == of || !std::ranges::all_of(v.type.dims, is_number) || !std::ranges::all_of(of.dims, is_number)) return;
    const auto size = [](const Type& t) { return product(t.dims) * Dim(bits(t.dtype)); };
    require(size(v.type) == size(of), "value '{}' is {}, an alias of {}", v.name, v.type.to_string(), of.to_string());
  }

  bool is_written(int index) const { return written_[static_cast<std::size_t>(index)] || written_[static_cast<std::size_t>(root(index))]; }

  void step(std::size_t number) {
    const Step& s = program_.steps[number];
    const std::string label = fmt::format("program '{}', step {} ({} \"{}\")", program_.name, number, s.op, s.node);
    const OpDef* op = ops_.find(s.op);
    require(op != nullptr, "{}: this build has no such op", label);
    const auto count = static_cast<int>(s.operands.size());
    require(count >= op->min_operands && (op->max_operands < 0 || count <= op->max_operands), "{}: {} operands, expected {} to {}", label,
            count, op->min_operands, op->max_operands);
    OpCall call{op, s.attributes, {}, {}};
    for (int i = 0; i < count; ++i) {
      const int operand = s.operands[static_cast<std::size_t>(i)];
      require(operand >= 0 || (operand == -1 && i >= op->min_operands), "{}: operand {} is absent", label, i);
      call.operands.push_back(operand < 0 ? std::nullopt : std::optional(value(operand, label).type));
      require(operand < 0 || is_written(operand), "{}: operand {} is read before it is written", label, i);
    }
    edge(number, label);
    for (const int result : s.results) {
      written_by_[static_cast<std::size_t>(root(check_index(result, label)))] = static_cast<int>(number);
      const PlanValue& v = value(result, label);
      require(v.kind == PlanValue::Kind::temporary && !written_[static_cast<std::size_t>(result)], "{}: result '{}' is written twice",
              label, v.name);
      const PlanValue& base = program_.values[static_cast<std::size_t>(root(result))];
      require(base.kind == PlanValue::Kind::temporary, "{}: result '{}' lies in an input or a weight", label, v.name);
      written_[static_cast<std::size_t>(result)] = true;
      call.results.push_back(v.type);
    }
    types(call, label);
  }

  // Where a step waits for all of the one before it, everything before has ended: later steps may read early what was written before there.
  // What their own step writes they may not, since one block may write before another has read.
  void edge(std::size_t number, const std::string& label) {
    const Step& s = program_.steps[number];
    if (!s.starts_early) {
      require(s.resident.empty(), "{}: it has resident operands and does not start early", label);
      last_full_ = static_cast<int>(number);
      return;
    }
    require(number > 0, "{}: nothing is before it that could let it start early", label);
    std::set<int> own;
    for (const int result : s.results) own.insert(root(check_index(result, label)));
    for (const int position : s.resident) {
      require(
          position >= 0 && static_cast<std::size_t>(position) < s.operands.size() && s.operands[static_cast<std::size_t>(position)] >= 0,
          "{}: operand {} is resident, and absent", label, position);
      const int memory = root(s.operands[static_cast<std::size_t>(position)]);
      require(written_by_[static_cast<std::size_t>(memory)] < last_full_ && !own.contains(memory),
              "{}: operand {} is read early, but may be written at that time", label, position);
    }
  }

  int check_index(int index, std::string_view what) const {
    value(index, what);
    return index;
  }

  static void types(const OpCall& call, const std::string& label) {
    std::vector<Type> expected;
    try {
      expected = call.op->infer(call);
    } catch (const Error& error) {
      fail(ErrorCode::invalid_engine, "{}: {}", label, error.message());
    }
    require(expected.size() == call.results.size(), "{}: {} results, expected {}", label, call.results.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i)
      require(call.results[i] == expected[i], "{}: result {} is {}, expected {}", label, i, call.results[i].to_string(),
              expected[i].to_string());
  }

  // A measured symbol is no extent of an input and of nothing that is made before its step, and no two steps measure one.
  void measured() const {
    const MeasuredList list = measured_of(program_);
    for (std::size_t m = 0; m < list.size(); ++m) {
      const auto& [symbol, bound, step, value] = list[m];
      const auto holds = [&](const std::vector<Dim>& dims) {
        std::set<std::string> symbols;
        for (const Dim& d : dims) d.collect_symbols(symbols);
        return symbols.contains(symbol);
      };
      bool early = holds({bound});
      for (const Binding& input : program_.inputs) early = early || holds(input.type.dims);
      for (int s = 0; s < step; ++s) early = early || step_holds(program_.steps[static_cast<std::size_t>(s)], holds);
      for (std::size_t other = 0; other < m; ++other) early = early || list[other].symbol == symbol;
      for (const Profile& p : program_.profiles) early = early || p.contains(symbol);
      require(!early, "program '{}': step {} measures '{}', which something before it or beside it gives", program_.name, step, symbol);
    }
    std::size_t at = 0;
    const std::string why = refuse_measured(plan_.device, program_, &at);
    require(why.empty(), "program '{}', step {}: {}", program_.name, at, why);
  }

  template <typename Holds>
  bool step_holds(const Step& step, const Holds& holds) const {
    const auto in_value = [&](int v) { return v >= 0 && holds(program_.values[static_cast<std::size_t>(v)].type.dims); };
    const auto in_attribute = [&](const AttributeValue& value) {
      if (const auto* d = std::get_if<Dim>(&value)) return holds({*d});
      const auto* ds = std::get_if<std::vector<Dim>>(&value);
      return ds && holds(*ds);
    };
    return std::ranges::any_of(step.operands, in_value) || std::ranges::any_of(step.results, in_value) ||
           std::ranges::any_of(step.attributes.values(), in_attribute);
  }

  void bindings(const std::vector<Binding>& list, std::string_view what) const {
    std::set<std::string_view> names;
    for (const Binding& b : list) {
      const PlanValue& v = value(b.value, fmt::format("program '{}', {}", program_.name, what));
      require(!b.name.empty() && names.insert(b.name).second, "two {}s are named '{}'", what, b.name);
      require((what == "input") <= (v.kind == PlanValue::Kind::input), "input '{}' is bound to a value of another kind", b.name);
      check_sharding(b.sharding, b.type.dims.size(), plan_.mesh, b.name);
      require(b.type.dtype == v.type.dtype && b.type.dims.size() == v.type.dims.size(), "{} '{}' is {}, its value {}", what, b.name,
              b.type.to_string(), v.type.to_string());
    }
  }

  const Plan& plan_;
  const Program& program_;
  const OpSet& ops_;
  std::vector<bool> written_;    // by a step so far, or from the start
  std::vector<int> root_;        // per value: whose memory it lies in
  std::vector<int> written_by_;  // per value that is a root: the last step so far; -1: none
  int last_full_ = 0;            // the last step so far that waits for all of the one before it
};

void check_weight(const PlanWeight& w, const Mesh& mesh) {
  require(!w.name.empty(), "a weight has no name");
  require(w.recipe->dtype == w.dtype && w.recipe->shape == w.shape, "weight '{}' is {}{}, its recipe makes {}{}", w.name,
          to_string(w.dtype), to_string(w.shape), to_string(w.recipe->dtype), to_string(w.recipe->shape));
  std::set<std::string> symbols;
  w.recipe->collect_symbols(symbols);
  std::vector<std::string> expected;
  for (const MeshAxis& a : mesh.axes())
    if (symbols.erase("@" + a.name)) expected.push_back(a.name);
  require(symbols.empty(), "weight '{}': the recipe has the symbol {}, expected coordinates of the mesh ({})", w.name,
          symbols.empty() ? "" : *symbols.begin(), mesh.to_string());
  require(w.axes == expected, "weight '{}' depends on axes [{}], its recipe on [{}]", w.name, fmt::join(w.axes, ","),
          fmt::join(expected, ","));
}

void check_collective(const CollectiveUse& use, const Plan& plan) {
  require(use.program >= 0 && static_cast<std::size_t>(use.program) < plan.programs.size(), "a collective of program {} of {}", use.program,
          plan.programs.size());
  const auto& steps = plan.programs[static_cast<std::size_t>(use.program)].steps;
  require(use.step >= 0 && static_cast<std::size_t>(use.step) < steps.size(), "a collective of step {} of {}", use.step, steps.size());
  require(use.axis.empty() || plan.mesh.has(use.axis), "a collective over axis '{}' in the mesh ({})", use.axis, plan.mesh.to_string());
  for (const auto& group : use.groups)
    for (const std::int64_t rank : group)
      require(rank >= 0 && rank < plan.world_size(), "a collective with rank {} of {}", rank, plan.world_size());
}

void check_code(const Plan& plan) {
  constexpr std::int64_t kLargest = 64 << 20;  // bytes of one text's code
  constexpr std::size_t kLongest = 64;         // of what names a text
  std::set<std::pair<std::string_view, int>> seen;
  for (const StoredCode& code : plan.code) {
    require(!code.text.empty() && code.text.size() <= kLongest, "code of a text that is named '{}'", code.text.substr(0, kLongest));
    require(code.sm > 0 && code.sm < 1000, "code for sm_{}", code.sm);
    require(code.size > 0 && code.size <= kLargest, "code of {} bytes, expected 1 to {}", code.size, kLargest);
    require(seen.emplace(code.text, code.sm).second, "two pieces of code for text '{}' on sm_{}", code.text, code.sm);
  }
}

// Callers see the inputs and outputs of the first program, whichever runs.
void check_profiles(const Plan& plan) {
  const Program& first = plan.programs[0];
  const auto same = [&](const Program& other, const std::vector<Binding>& a, const std::vector<Binding>& b) {
    return std::ranges::equal(a, b, [&](const Binding& x, const Binding& y) {
      return x.name == y.name && x.value == y.value && x.type == y.type && x.sharding == y.sharding &&
             first.values[static_cast<std::size_t>(x.value)].type == other.values[static_cast<std::size_t>(y.value)].type;
    });
  };
  for (std::size_t p = 1; p < plan.profiles(); ++p)
    require(
        same(plan.programs[p], first.inputs, plan.programs[p].inputs) && same(plan.programs[p], first.outputs, plan.programs[p].outputs),
        "the program of profile {} has other inputs or outputs than that of profile 0", p);
}

void check_parts(const Plan& plan, const OpSet& ops) {
  check_code(plan);
  std::set<std::string_view> names;
  for (const PlanWeight& w : plan.weights) {
    check_weight(w, plan.mesh);
    require(names.insert(w.name).second, "two weights are named '{}'", w.name);
  }
  for (const Program& p : plan.programs) ProgramCheck(plan, p, ops).run();
  check_profiles(plan);
  for (const CollectiveUse& use : plan.collectives) check_collective(use, plan);
}

}  // namespace

void check_plan(const Plan& plan, const OpSet& ops) {
  require(plan.format == kPlanFormat, "plan format {}, expected {}", plan.format, kPlanFormat);
  require(!plan.programs.empty(), "a plan without a program");
  try {
    check_parts(plan, ops);
  } catch (const Error& error) {  // overflow in an extent, for instance
    if (error.code() == ErrorCode::internal) throw;
    fail(ErrorCode::invalid_engine, "{}", error.message());
  }
}

}  // namespace tandem
