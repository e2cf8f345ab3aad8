#include "graph/attribute.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"

namespace tandem {

std::string_view to_string(FieldKind kind) {
  switch (kind) {
    case FieldKind::integer: return "integer";
    case FieldKind::real: return "real";
    case FieldKind::boolean: return "bool";
    case FieldKind::text: return "text";
    case FieldKind::integers: return "integers";
    case FieldKind::dim: return "dim";
    case FieldKind::dims: return "dims";
    case FieldKind::dtype: return "dtype";
    case FieldKind::tensor: return "tensor";
    case FieldKind::rank_lists: break;
  }
  return "lists of ranks";
}

Attributes::Attributes(const std::vector<Field>* fields) : fields_(fields) {
  for (const Field& f : *fields) values_.push_back(f.initial);
}

bool Attributes::has(std::string_view name) const {
  return fields_ && std::any_of(fields_->begin(), fields_->end(), [&](const Field& f) { return f.name == name; });
}

std::size_t Attributes::index(std::string_view name) const {
  for (std::size_t i = 0; fields_ && i < fields_->size(); ++i)
    if ((*fields_)[i].name == name) return i;
  fail(ErrorCode::internal, "the op has no attribute '{}'", name);
}

void Attributes::set(std::string_view name, AttributeValue value) {
  if (!has(name)) fail(ErrorCode::invalid_model, "unknown attribute '{}'", name);
  const std::size_t i = index(name);
  const Field& field = (*fields_)[i];
  if (value.index() != static_cast<std::size_t>(field.kind)) fail(ErrorCode::invalid_model, "attribute '{}' has the wrong type", name);
  if (const auto* word = std::get_if<std::string>(&value); word && !field.words.empty())
    if (std::find(field.words.begin(), field.words.end(), *word) == field.words.end())
      fail(ErrorCode::invalid_model, "attribute {}='{}' is not one of {}", name, *word, fmt::join(field.words, " "));
  values_[i] = std::move(value);
}

bool equal(const AttributeValue& a, const AttributeValue& b) {
  if (a.index() != b.index()) return false;
  if (const auto* x = std::get_if<Tensor>(&a)) {
    const auto& y = std::get<Tensor>(b);
    return x->dtype() == y.dtype() && x->shape() == y.shape() && std::ranges::equal(x->bytes(), y.bytes());
  }
  if (const auto* x = std::get_if<double>(&a)) return std::memcmp(x, &std::get<double>(b), sizeof(double)) == 0;
  return std::visit(
      [&](const auto& x) {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, Tensor>) return false;
        else return x == std::get<T>(b);
      },
      a);
}

bool operator==(const Attributes& a, const Attributes& b) {
  return std::ranges::equal(a.values(), b.values(), [](const auto& x, const auto& y) { return equal(x, y); });
}

}  // namespace tandem
