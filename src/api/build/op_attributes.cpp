#include "api/build/op_attributes.h"

#include <algorithm>
#include <cstring>

#include "api/run/engine_data.h"
#include "core/check.h"

namespace tandem {
namespace {

std::string_view kind_of(const OpAttribute& value) {
  constexpr std::string_view kinds[] = {"an integer",        "a real",  "a bool",   "a text",        "a list of integers",
                                        "a list of extents", "a dtype", "an array", "lists of ranks"};
  return kinds[value.index()];
}

template <typename T>
const T* as(const OpAttribute& value) {
  return std::get_if<T>(&value);
}

std::optional<std::vector<std::int64_t>> integers(const OpAttribute& value) {
  if (const auto* list = as<std::vector<std::int64_t>>(value)) return *list;
  const auto* extents = as<Extents>(value);
  if (!extents || !std::ranges::all_of(*extents, [](const Extent& e) { return e.value().has_value(); })) return std::nullopt;
  std::vector<std::int64_t> list;
  for (const Extent& e : *extents) list.push_back(*e.value());
  return list;
}

std::optional<std::vector<Dim>> dims(const OpAttribute& value) {
  if (const auto* list = as<std::vector<std::int64_t>>(value)) return std::vector<Dim>(list->begin(), list->end());
  if (const auto* extents = as<Extents>(value)) return to_dims(*extents);
  return std::nullopt;
}

std::optional<RankLists> rank_lists(const OpAttribute& value) {
  if (const auto* lists = as<RankGroups>(value)) return *lists;
  const auto flat = integers(value);
  if (!flat) return std::nullopt;
  return flat->empty() ? RankLists{} : RankLists{*flat};
}

// What the field's kind makes of a value; nothing if it is of no such kind.
std::optional<AttributeValue> converted(FieldKind kind, const OpAttribute& value) {
  const auto given = [](auto&& found) { return found ? std::optional<AttributeValue>(*found) : std::nullopt; };
  switch (kind) {
    case FieldKind::integer: return given(as<std::int64_t>(value));
    case FieldKind::real:
      if (const auto* whole = as<std::int64_t>(value)) return static_cast<double>(*whole);
      return given(as<double>(value));
    case FieldKind::boolean: return given(as<bool>(value));
    case FieldKind::text: return given(as<std::string>(value));
    case FieldKind::integers: return given(integers(value));
    case FieldKind::dim:
      if (const auto* number = as<std::int64_t>(value)) return Dim(*number);
      if (const auto* text = as<std::string>(value)) return Dim::parse(*text);
      return std::nullopt;
    case FieldKind::dims: return given(dims(value));
    case FieldKind::dtype:
      if (const auto* word = as<std::string>(value)) return parse_dtype(*word);
      return given(as<DType>(value));
    case FieldKind::tensor:
      if (const auto* array = as<Array>(value)) return copied_tensor(*array, "the array");
      return std::nullopt;
    case FieldKind::rank_lists: break;
  }
  return given(rank_lists(value));
}

void check_array(const Array& array, const std::string& what) {
  if (array.size_bytes() > 0 && !array.data) fail(ErrorCode::invalid_argument, "{} has no memory", what);
}

}  // namespace

AttributeValue to_graph(const Field& field, const OpAttribute& value) {
  const std::string_view kind = to_string(field.kind);
  try {
    if (auto found = converted(field.kind, value)) return *std::move(found);
  } catch (const Error& error) {
    fail(ErrorCode::invalid_argument, "attribute '{}' ({}): {}", field.name, kind, error.message());
  }
  fail(ErrorCode::invalid_argument, "attribute '{}' is of kind {}, found {}", field.name, kind, kind_of(value));
}

OpAttribute to_public(const AttributeValue& value) {
  return std::visit(
      [](const auto& v) -> OpAttribute {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, Dim>) return v.is_constant() ? OpAttribute(v.constant()) : OpAttribute(v.to_string());
        else if constexpr (std::is_same_v<T, std::vector<Dim>>) return to_extents(v);
        else if constexpr (std::is_same_v<T, Tensor>) return to_array(v);
        else return v;
      },
      value);
}

std::vector<Dim> to_dims(const Extents& extents) {
  std::vector<Dim> dims;
  for (const Extent& e : extents) dims.push_back(e.value() ? Dim(*e.value()) : Dim::parse(e.text()));
  return dims;
}

Extents to_extents(const std::vector<Dim>& dims) {
  Extents extents;
  for (const Dim& d : dims) extents.push_back(d.is_constant() ? Extent(d.constant()) : Extent(d.to_string()));
  return extents;
}

Tensor copied_tensor(const Array& array, const std::string& what) {
  check_array(array, what);
  Tensor copy(array.dtype, array.shape);
  if (copy.size_bytes() > 0) std::memcpy(copy.mutable_data(), array.data.get(), copy.size_bytes());
  return copy;
}

Tensor shared_tensor(const Array& array, const std::string& what) {
  check_array(array, what);
  const auto align = static_cast<std::uintptr_t>(std::max(1, bits(array.dtype) / 8));
  return reinterpret_cast<std::uintptr_t>(array.data.get()) % align == 0 ? to_tensor(array) : copied_tensor(array, what);
}

}  // namespace tandem
