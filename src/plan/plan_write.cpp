#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/digest.h"
#include "graph/text_values.h"
#include "plan/plan_fields.h"
#include "plan/words.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;  // people read it: fields in the order of their list

template <typename T>
Json encode(const T& value);

struct Writer {
  Json json = Json::object();
  template <typename T>
  void required(const char* name, const T& value) {
    json[name] = encode(value);
  }
  template <typename T>
  void optional(const char* name, const T& value, const T& otherwise) {
    if (!(value == otherwise)) required(name, value);
  }
};

Json encode_attribute(const AttributeValue& value) {
  return std::visit(
      [&](const auto& v) -> Json {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, double>) {
          if (std::isfinite(v)) return v;
          return print_real(v);
        } else if constexpr (std::is_same_v<T, Tensor>) {
          return print_tensor(v);
        } else {
          return encode(v);
        }
      },
      value);
}

template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};

template <typename T>
Json encode(const T& value) {
  if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string> || std::is_same_v<T, std::map<std::string, std::string>>) {
    return value;
  } else if constexpr (IsVector<T>::value) {
    Json list = Json::array();
    for (const auto& item : value) list.push_back(encode(item));
    return list;
  } else if constexpr (std::is_same_v<T, DType>) {
    return std::string(to_string(value));
  } else if constexpr (std::is_same_v<T, PlanValue::Kind>) {
    return std::string(kValueKinds.at(static_cast<std::size_t>(value)));
  } else if constexpr (std::is_same_v<T, Dim> || std::is_same_v<T, Type>) {
    return value.to_string();
  } else if constexpr (std::is_same_v<T, Sharding>) {
    return print_sharding(value);
  } else if constexpr (std::is_same_v<T, RecipePtr>) {
    check(value != nullptr, "a weight of a plan has a recipe");
    return print_recipe(*value);
  } else if constexpr (std::is_same_v<T, Mesh>) {
    Json axes = Json::array();
    for (const MeshAxis& a : value.axes()) axes.push_back(Json::array({a.name, a.size}));
    return axes;
  } else if constexpr (std::is_same_v<T, Profile>) {
    Json symbols = Json::object();
    for (const auto& [symbol, r] : value) symbols[symbol] = Json::array({r.min, r.opt, r.max});
    return symbols;
  } else {
    Writer writer;
    visit_fields(writer, value);
    if constexpr (std::is_same_v<T, Step>) {
      const auto& values = value.attributes.values();
      Json& attributes = writer.json["attributes"] = Json::object();
      for (std::size_t i = 0; i < values.size(); ++i) attributes[value.attributes.fields()[i].name] = encode_attribute(values[i]);
    }
    return std::move(writer.json);
  }
}

std::string dump(const Json& json) {
  try {
    return json.dump();
  } catch (const nlohmann::json::exception&) {
    fail(ErrorCode::invalid_argument, "a name in the plan is not UTF-8");
  }
}

}  // namespace

std::string to_json(const Plan& plan) { return dump(encode(plan)); }

std::uint64_t digest(const Plan& plan) {
  std::vector<Program> programs = plan.programs;
  for (Program& program : programs) {
    for (PlanValue& value : program.values) value.sharding = {};
    for (Step& step : program.steps) {
      step.microseconds = 0;
      step.note.clear();
      step.candidates.clear();
      step.starts_early = false;  // changes no result
      step.resident.clear();
    }
  }
  Json parts = Json::array({encode(plan.mesh), encode(programs), encode(plan.weights), encode(plan.collectives)});
  if (plan.tf32) parts.push_back("tf32");
  return text_digest(dump(parts));
}

// Not the groups: files made per rank name their own only. Nor counts that wait for shapes: their symbols are each file's own.
std::uint64_t digest(const std::vector<CollectiveUse>& uses) {
  std::string text;
  for (const CollectiveUse& use : uses)
    text += fmt::format("{} {} {} {} {}\n", use.operation, use.reduce, to_string(use.dtype),
                        use.count.is_constant() ? use.count.to_string() : "?", use.root);
  return text_digest(text);
}

}  // namespace tandem
