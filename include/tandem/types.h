// Element types and plain views of memory, shared by every interface. Public; belongs to core.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

enum class DType : std::uint8_t { f32, f16, bf16, f64, f8e4m3, f8e5m2, i8, u8, i16, u16, i32, u32, i64, u64, boolean, i4, u4 };

// "f32", "bf16", "i64", "bool", …
std::string_view to_string(DType type);
// Throws Error(invalid_argument) for a word that is no type.
DType parse_dtype(std::string_view word);
// Bits of one element: 4 for i4 and u4, 8 for bool.
int bits(DType type);
// Bytes of `count` elements; throws where elements do not fill whole bytes.
std::size_t bytes(DType type, std::int64_t count);
bool is_float(DType type);
bool is_integer(DType type);

using Shape = std::vector<std::int64_t>;

// Product of the extents; 1 for a scalar. Throws Error(invalid_argument) on overflow or a negative extent.
std::int64_t element_count(const Shape& shape);
std::string to_string(const Shape& shape);

}  // namespace tandem
