#include <array>

#include "core/check.h"
#include "core/numeric.h"
#include "tandem/types.h"

namespace tandem {
namespace {

struct Row {
  DType type;
  std::string_view name;
  int bits;
  char kind;  // f float, i integer, b boolean
};

constexpr std::array kTypes = {
    Row{DType::f32, "f32", 32, 'f'}, Row{DType::f16, "f16", 16, 'f'},      Row{DType::bf16, "bf16", 16, 'f'},
    Row{DType::f64, "f64", 64, 'f'}, Row{DType::f8e4m3, "f8e4m3", 8, 'f'}, Row{DType::f8e5m2, "f8e5m2", 8, 'f'},
    Row{DType::i8, "i8", 8, 'i'},    Row{DType::u8, "u8", 8, 'i'},         Row{DType::i16, "i16", 16, 'i'},
    Row{DType::u16, "u16", 16, 'i'}, Row{DType::i32, "i32", 32, 'i'},      Row{DType::u32, "u32", 32, 'i'},
    Row{DType::i64, "i64", 64, 'i'}, Row{DType::u64, "u64", 64, 'i'},      Row{DType::boolean, "bool", 8, 'b'},
    Row{DType::i4, "i4", 4, 'i'},    Row{DType::u4, "u4", 4, 'i'},
};

const Row& row(DType type) { return kTypes.at(static_cast<std::size_t>(type)); }

}  // namespace

std::string_view to_string(DType type) { return row(type).name; }

DType parse_dtype(std::string_view word) {
  for (const Row& r : kTypes)
    if (r.name == word) return r.type;
  fail(ErrorCode::invalid_argument,
       "'{}' is no element type; the types are f32 f16 bf16 f64 f8e4m3 f8e5m2 i8 u8 i16 u16 i32 u32 i64 u64 bool i4 u4", word);
}

int bits(DType type) { return row(type).bits; }

std::size_t bytes(DType type, std::int64_t count) {
  const std::int64_t total = checked_multiply(count, bits(type));
  if (total % 8 != 0) fail(ErrorCode::invalid_argument, "{} elements of {} do not fill whole bytes", count, to_string(type));
  return static_cast<std::size_t>(total / 8);
}

bool is_float(DType type) { return row(type).kind == 'f'; }
bool is_integer(DType type) { return row(type).kind == 'i'; }

std::int64_t element_count(const Shape& shape) {
  std::int64_t count = 1;
  for (std::int64_t extent : shape) {
    if (extent < 0) fail(ErrorCode::invalid_argument, "negative extent in shape {}", to_string(shape));
    count = checked_multiply(count, extent);
  }
  return count;
}

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ",")); }

}  // namespace tandem
