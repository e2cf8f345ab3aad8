// The parts of the text form that stand for themselves: types, shardings, recipes, attribute values. Plans use them too.
#pragma once

#include <string>

#include "graph/attribute.h"
#include "graph/scanner.h"
#include "graph/sharding.h"
#include "graph/weight.h"

namespace tandem {

// What parsing a text may cost beyond its length: bytes of a tensor written as one repeated element.
inline constexpr std::size_t kSplatLimit = 4096;

std::string print_sharding(const Sharding& sharding);
std::string print_recipe(const Recipe& recipe);
std::string print_real(double value);
std::string print_tensor(const Tensor& tensor);
std::string print_value(const AttributeValue& value);

DType scan_dtype(Scanner& scanner);
Shape scan_shape(Scanner& scanner);
Type scan_type(Scanner& scanner);
Sharding scan_sharding(Scanner& scanner);
RecipePtr scan_recipe(Scanner& scanner);
Tensor scan_tensor(Scanner& scanner);
AttributeValue scan_value(Scanner& scanner, FieldKind kind);

// The elements of a tensor, bit for bit.
std::uint64_t element_bits(const Tensor& tensor, std::int64_t index);
void set_element_bits(DType dtype, std::byte* data, std::int64_t index, std::uint64_t bits);

}  // namespace tandem
