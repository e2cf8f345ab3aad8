#include "runtime/memory.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "core/stored_bytes.h"
#include "plan/measured.h"

namespace tandem {

std::vector<int> alias_roots(const Program& program) {
  std::vector<int> root(program.values.size());
  for (std::size_t v = 0; v < root.size(); ++v) {
    int at = static_cast<int>(v);
    for (std::size_t hops = 0; program.values[static_cast<std::size_t>(at)].alias_of >= 0; ++hops) {
      if (hops > root.size()) fail(ErrorCode::invalid_engine, "value '{}' is an alias of itself", program.values[v].name);
      at = program.values[static_cast<std::size_t>(at)].alias_of;
    }
    root[v] = at;
  }
  return root;
}

std::vector<int> direct_outputs(const Program& program) {
  const std::vector<int> root = alias_roots(program);
  std::vector<int> output(program.values.size(), -1);
  std::vector<int> uses(program.values.size(), 0);
  for (const Binding& o : program.outputs) ++uses[static_cast<std::size_t>(root[static_cast<std::size_t>(o.value)])];
  for (std::size_t i = 0; i < program.outputs.size(); ++i) {
    const auto r = static_cast<std::size_t>(root[static_cast<std::size_t>(program.outputs[i].value)]);
    if (program.values[r].kind == PlanValue::Kind::temporary && uses[r] == 1) output[r] = static_cast<int>(i);
  }
  return output;
}

int last_step_that_reads_inputs(const Program& program) {
  const std::vector<int> root = alias_roots(program);
  const auto is_input = [&](int value) {
    return value >= 0 && program.values[static_cast<std::size_t>(root[static_cast<std::size_t>(value)])].kind == PlanValue::Kind::input;
  };
  for (const Binding& output : program.outputs)
    if (is_input(output.value)) return static_cast<int>(program.steps.size());
  for (int s = static_cast<int>(program.steps.size()) - 1; s >= 0; --s)
    if (std::ranges::any_of(program.steps[static_cast<std::size_t>(s)].operands, is_input)) return s;
  return -1;
}

namespace {

// First offset at which `bytes` fit between the blocks that live at the same time.
std::size_t first_fit(std::vector<std::pair<std::size_t, std::size_t>> taken, std::size_t bytes) {
  std::sort(taken.begin(), taken.end());
  std::size_t at = 0;
  for (const auto& [begin, end] : taken) {
    if (at + bytes <= begin) break;
    at = std::max(at, end);
  }
  return at;
}

}  // namespace

MemoryPlan plan_memory(const Program& program, const SymbolValues& symbols, const std::vector<bool>& outside) {
  MemoryPlan plan;
  const std::size_t count = program.values.size();
  plan.root = alias_roots(program);
  plan.offset.assign(count, 0);
  plan.size.resize(count);
  const MeasuredList measured = measured_of(program);
  std::vector<std::size_t> order;
  for (std::size_t v = 0; v < count; ++v) {
    const PlanValue& value = program.values[v];
    plan.size[v] = stored_bytes(value.type.dtype, element_count(largest_dims(measured, value.type.dims, symbols)));
    if (value.kind == PlanValue::Kind::temporary && plan.root[v] == static_cast<int>(v) && !outside[v]) order.push_back(v);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return plan.size[a] > plan.size[b]; });
  std::vector<std::size_t> placed;
  for (const std::size_t v : order) {
    const PlanValue& value = program.values[v];
    const std::size_t room = (plan.size[v] + kAlignment - 1) / kAlignment * kAlignment;
    std::vector<std::pair<std::size_t, std::size_t>> taken;
    for (const std::size_t other : placed)
      if (program.values[other].first_step <= value.last_step && value.first_step <= program.values[other].last_step)
        taken.emplace_back(plan.offset[other], plan.offset[other] + (plan.size[other] + kAlignment - 1) / kAlignment * kAlignment);
    plan.offset[v] = first_fit(std::move(taken), room);
    plan.arena_bytes = std::max(plan.arena_bytes, plan.offset[v] + room);
    placed.push_back(v);
  }
  return plan;
}

}  // namespace tandem
