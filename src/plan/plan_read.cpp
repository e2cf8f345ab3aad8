#include <nlohmann/json.hpp>

#include <limits>

#include "core/check.h"
#include "core/json_text.h"
#include "graph/text_values.h"
#include "plan/plan_check.h"
#include "plan/plan_fields.h"
#include "plan/words.h"

namespace tandem {
namespace {

using Json = nlohmann::json;
constexpr std::size_t kDepthLimit = 64;

// Where in the plan we are: ".programs[0].steps[3].kernel".
struct Path {
  const Path* up = nullptr;
  std::string_view key;
  std::size_t index = 0;

  std::string text() const {
    if (!up) return "plan";
    return up->text() + (key.empty() ? fmt::format("[{}]", index) : fmt::format(".{}", key));
  }
};

[[noreturn]] void refuse(const Path& path, std::string_view message) { fail(ErrorCode::invalid_engine, "{}: {}", path.text(), message); }

// Runs a parser of text; what it refuses is reported at `path`.
template <typename F>
auto parsed(const Path& path, F f) {
  try {
    return f();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::internal) throw;
    refuse(path, error.message());
  }
}

const std::string& text(const Json& json, const Path& path) {
  if (!json.is_string()) refuse(path, "a string expected");
  return json.get_ref<const std::string&>();
}

const Json& array(const Json& json, const Path& path) {
  if (!json.is_array()) refuse(path, "a list expected");
  return json;
}

const Json& object(const Json& json, const Path& path) {
  if (!json.is_object()) refuse(path, "an object expected");
  return json;
}

std::int64_t integer(const Json& json, const Path& path) {
  const bool fits =
      json.is_number_integer() && (!json.is_number_unsigned() || json.get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX));
  if (!fits) refuse(path, "a whole number expected");
  return json.get<std::int64_t>();
}

// A value of the text form, all of the string.
template <typename F>
auto scanned(const Json& json, const Path& path, F scan) {
  return parsed(path, [&] {
    Scanner scanner(text(json, path));
    auto value = scan(scanner);
    if (scanner.peek() != '\0') scanner.refuse("the end");
    return value;
  });
}

class Decoder {
 public:
  explicit Decoder(const OpSet& ops) : ops_(ops) {}

  void decode(const Json& j, const Path& p, std::string& out) const { out = text(j, p); }
  void decode(const Json& j, const Path& p, bool& out) const {
    if (!j.is_boolean()) refuse(p, "true or false expected");
    out = j.get<bool>();
  }
  void decode(const Json& j, const Path& p, std::int64_t& out) const { out = integer(j, p); }
  void decode(const Json& j, const Path& p, int& out) const {
    const std::int64_t value = integer(j, p);
    if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max())
      refuse(p, fmt::format("{} is too large", value));
    out = static_cast<int>(value);
  }
  void decode(const Json& j, const Path& p, double& out) const {
    if (j.is_string()) {
      out = std::get<double>(scanned(j, p, [](Scanner& s) { return scan_value(s, FieldKind::real); }));
    } else {
      if (!j.is_number()) refuse(p, "a number expected");
      out = j.get<double>();
    }
  }
  void decode(const Json& j, const Path& p, DType& out) const {
    out = parsed(p, [&] { return parse_dtype(text(j, p)); });
  }
  void decode(const Json& j, const Path& p, PlanValue::Kind& out) const {
    const auto found = std::ranges::find(kValueKinds, text(j, p));
    if (found == kValueKinds.end()) refuse(p, fmt::format("'{}' is not one of {}", text(j, p), fmt::join(kValueKinds, " ")));
    out = static_cast<PlanValue::Kind>(found - kValueKinds.begin());
  }
  void decode(const Json& j, const Path& p, Dim& out) const {
    out = parsed(p, [&] { return Dim::parse(text(j, p)); });
  }
  void decode(const Json& j, const Path& p, Type& out) const { out = scanned(j, p, scan_type); }
  void decode(const Json& j, const Path& p, Sharding& out) const { out = scanned(j, p, scan_sharding); }
  void decode(const Json& j, const Path& p, RecipePtr& out) const { out = scanned(j, p, scan_recipe); }
  void decode(const Json& j, const Path& p, Tensor& out) const { out = scanned(j, p, scan_tensor); }
  void decode(const Json& j, const Path& p, Mesh& out) const {
    std::vector<MeshAxis> axes;
    for (const Json& pair : array(j, p)) {
      const Path at{&p, {}, axes.size()};
      if (array(pair, at).size() != 2) refuse(at, "a name and a size expected");
      MeshAxis axis;
      decode(pair[0], at, axis.name);
      decode(pair[1], at, axis.size);
      axes.push_back(std::move(axis));
    }
    out = parsed(p, [&] { return Mesh(std::move(axes)); });
  }
  void decode(const Json& j, const Path& p, Profile& out) const {
    for (const auto& [symbol, range] : object(j, p).items()) {
      const Path at{&p, symbol};
      if (array(range, at).size() != 3) refuse(at, "min, opt and max expected");
      out[symbol] = {integer(range[0], at), integer(range[1], at), integer(range[2], at)};
    }
  }
  void decode(const Json& j, const Path& p, std::map<std::string, std::string>& out) const {
    for (const auto& [key, value] : object(j, p).items()) out[key] = text(value, {&p, key});
  }
  template <typename T>
  void decode(const Json& j, const Path& p, std::vector<T>& out) const {
    out.reserve(array(j, p).size());
    for (const Json& item : j) {
      T value{};
      decode(item, {&p, {}, out.size()}, value);
      out.push_back(std::move(value));
    }
  }
  template <typename T>
  void decode(const Json& j, const Path& p, T& out) const
    requires std::is_class_v<T>;

 private:
  void decode_attributes(const Json& j, const Path& p, Step& step) const;
  AttributeValue attribute(const Json& j, const Path& p, FieldKind kind) const;
  template <typename T>
  AttributeValue of(const Json& j, const Path& p) const {
    T value{};
    decode(j, p, value);
    return value;
  }

  const OpSet& ops_;
};

struct Reader {
  const Decoder& decoder;
  const Json& json;
  const Path& path;
  std::size_t seen = 0;

  template <typename T>
  void required(const char* name, T& value) {
    const auto found = json.find(name);
    if (found == json.end()) refuse(path, fmt::format("'{}' is missing", name));
    decoder.decode(*found, {&path, name}, value);
    ++seen;
  }
  template <typename T>
  void optional(const char* name, T& value, const T& otherwise) {
    if (json.contains(name)) required(name, value);
    else value = otherwise;
  }
};

template <typename T>
void Decoder::decode(const Json& j, const Path& p, T& out) const
  requires std::is_class_v<T>
{
  Reader reader{*this, object(j, p), p};
  visit_fields(reader, out);
  if constexpr (std::is_same_v<T, Step>) {
    const auto found = j.find("attributes");
    if (found == j.end()) refuse(p, "'attributes' is missing");
    decode_attributes(*found, {&p, "attributes"}, out);
    ++reader.seen;
  }
  if (reader.seen != j.size()) refuse(p, fmt::format("{} fields, expected {}", j.size(), reader.seen));
}

AttributeValue Decoder::attribute(const Json& j, const Path& p, FieldKind kind) const {
  switch (kind) {
    case FieldKind::integer: return of<std::int64_t>(j, p);
    case FieldKind::real: return of<double>(j, p);
    case FieldKind::boolean: return of<bool>(j, p);
    case FieldKind::text: return of<std::string>(j, p);
    case FieldKind::integers: return of<std::vector<std::int64_t>>(j, p);
    case FieldKind::dim: return of<Dim>(j, p);
    case FieldKind::dims: return of<std::vector<Dim>>(j, p);
    case FieldKind::dtype: return of<DType>(j, p);
    case FieldKind::tensor: return of<Tensor>(j, p);
    case FieldKind::rank_lists: break;
  }
  return of<RankLists>(j, p);
}

// A field that the file does not have keeps its default: it is younger than the file.
void Decoder::decode_attributes(const Json& j, const Path& p, Step& step) const {
  const OpDef* op = ops_.find(step.op);
  if (!op) refuse(p, fmt::format("this build has no op '{}'", step.op));
  step.attributes = Attributes(&op->fields);
  for (const auto& [name, value] : object(j, p).items()) {
    const Path at{&p, name};
    const auto field = std::ranges::find(op->fields, name, &Field::name);
    if (field == op->fields.end()) refuse(at, fmt::format("{} has no such attribute", step.op));
    AttributeValue decoded = attribute(value, at, field->kind);
    parsed(at, [&] { step.attributes.set(name, std::move(decoded)); });
  }
}

}  // namespace

Plan plan_from_json(std::string_view text, const OpSet& ops) {
  check_json_depth(text, kDepthLimit, "the plan", ErrorCode::invalid_engine);
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) fail(ErrorCode::invalid_engine, "the plan is no JSON");
  Plan plan;
  Decoder(ops).decode(json, Path{}, plan);
  check_plan(plan, ops);
  return plan;
}

}  // namespace tandem
