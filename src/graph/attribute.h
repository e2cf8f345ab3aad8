// Attributes: the named constants of a node, checked against the field list of its op.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/dim.h"
#include "core/tensor.h"

namespace tandem {

using RankLists = std::vector<std::vector<std::int64_t>>;
// Order matches FieldKind.
using AttributeValue =
    std::variant<std::int64_t, double, bool, std::string, std::vector<std::int64_t>, Dim, std::vector<Dim>, DType, Tensor, RankLists>;
enum class FieldKind : std::uint8_t { integer, real, boolean, text, integers, dim, dims, dtype, tensor, rank_lists };
// The word for people: "integer", "bool", "lists of ranks".
std::string_view to_string(FieldKind kind);

struct Field {
  std::string name;
  FieldKind kind;
  AttributeValue initial;            // its type must be that of `kind`
  std::vector<std::string> words{};  // allowed values of a text field; empty allows all
  std::string doc{};
};

// One value per field. Getting by a name or type the op does not have is Error(internal); setting checks the words.
class Attributes {
 public:
  Attributes() = default;
  explicit Attributes(const std::vector<Field>* fields);

  template <typename T>
  const T& get(std::string_view name) const {
    return std::get<T>(values_[index(name)]);
  }
  std::int64_t integer(std::string_view name) const { return get<std::int64_t>(name); }
  double real(std::string_view name) const { return get<double>(name); }
  bool boolean(std::string_view name) const { return get<bool>(name); }
  const std::string& text(std::string_view name) const { return get<std::string>(name); }
  const std::vector<std::int64_t>& integers(std::string_view name) const { return get<std::vector<std::int64_t>>(name); }
  const Dim& dim(std::string_view name) const { return get<Dim>(name); }
  const std::vector<Dim>& dims(std::string_view name) const { return get<std::vector<Dim>>(name); }

  bool has(std::string_view name) const;
  // Throws Error(invalid_model) for an unknown name, another type or a word that is not allowed.
  void set(std::string_view name, AttributeValue value);
  const std::vector<Field>& fields() const { return *fields_; }
  const std::vector<AttributeValue>& values() const { return values_; }
  std::vector<AttributeValue>& values() { return values_; }

 private:
  std::size_t index(std::string_view name) const;
  const std::vector<Field>* fields_ = nullptr;
  std::vector<AttributeValue> values_;
};

bool equal(const AttributeValue& a, const AttributeValue& b);
bool operator==(const Attributes& a, const Attributes& b);

}  // namespace tandem
