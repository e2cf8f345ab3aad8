#include "api/run/describe_program.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/stored_bytes.h"
#include "plan/measured.h"
#include "runtime/memory.h"
#include "runtime/symbols.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

const char* word(PlanValue::Kind kind) {
  switch (kind) {
    case PlanValue::Kind::input: return "input";
    case PlanValue::Kind::weight: return "weight";
    case PlanValue::Kind::temporary: break;
  }
  return "temporary";
}

}  // namespace

Json number_or_text(const Dim& dim) { return dim.is_constant() ? Json(dim.constant()) : Json(dim.to_string()); }

void describe_sharding(Json& into, const Sharding& sharding, int rank) {
  into["sharding"] = sharding.to_string();
  into["partial"] = Json::array();
  into["varying"] = sharding.varying;
  for (const Partial& p : sharding.partial) into["partial"].push_back(p.axis);
  Json& split = into["split"] = Json::array();
  for (int d = 0; d < rank; ++d) {
    Json axes = Json::array();
    for (const Factor& factor : sharding.dim(d))
      for (const std::string& axis : factor.axes) axes.push_back(axis);
    split.push_back(std::move(axes));
  }
}

Json describe_values(const Program& program, const SymbolValues& symbols) {
  Json out = Json::array();
  const MeasuredList measured = measured_of(program);
  for (const PlanValue& value : program.values) {
    Json shape = Json::array();
    for (const Dim& dim : value.type.dims) shape.push_back(number_or_text(dim));
    Json one = {{"name", value.name}, {"kind", word(value.kind)}, {"dtype", to_string(value.type.dtype)}, {"shape", std::move(shape)}};
    describe_sharding(one, value.sharding, value.type.rank());
    one["bytes"] = stored_bytes(value.type.dtype, element_count(largest_dims(measured, value.type.dims, symbols)));
    if (value.weight >= 0) one["weight"] = value.weight;
    if (value.alias_of >= 0) {
      one["alias_of"] = value.alias_of;
    } else if (value.kind == PlanValue::Kind::temporary) {
      one["first_step"] = value.first_step;
      one["last_step"] = value.last_step;
    }
    out.push_back(std::move(one));
  }
  return out;
}

std::vector<std::size_t> live_bytes(const Program& program, const SymbolValues& symbols) {
  const std::vector<int> roots = alias_roots(program);
  const MeasuredList measured = measured_of(program);
  const std::size_t steps = program.steps.size();
  std::vector<std::size_t> born(steps + 1), dead(steps + 1), live(steps);
  for (std::size_t v = 0; v < program.values.size(); ++v) {
    const PlanValue& value = program.values[v];
    if (value.kind != PlanValue::Kind::temporary || roots[v] != static_cast<int>(v) || value.first_step < 0) continue;
    const std::size_t size = stored_bytes(value.type.dtype, element_count(largest_dims(measured, value.type.dims, symbols)));
    const std::size_t room = (size + kAlignment - 1) / kAlignment * kAlignment;
    born[static_cast<std::size_t>(value.first_step)] += room;
    dead[std::min(steps, static_cast<std::size_t>(value.last_step) + 1)] += room;
  }
  std::size_t now = 0;
  for (std::size_t s = 0; s < steps; ++s) live[s] = now = now + born[s] - dead[s];
  return live;
}

}  // namespace tandem
