#include <cstring>
#include <limits>

#include "core/check.h"
#include "core/half.h"
#include "core/numeric.h"
#include "core/stored_bytes.h"
#include "graph/text.h"
#include "graph/text_values.h"

namespace tandem {
namespace {

// Calls item() for each of a comma-separated list up to `close`, whose opening was taken.
template <typename F>
void scan_list(Scanner& s, char close, F item) {
  if (s.take(close)) return;
  do item();
  while (s.take(','));
  s.expect(close);
}

std::vector<std::int64_t> scan_integers(Scanner& s) {
  std::vector<std::int64_t> values;
  s.expect('[');
  scan_list(s, ']', [&] { values.push_back(s.integer("an integer")); });
  return values;
}

std::vector<Dim> scan_dims(Scanner& s) {
  std::vector<Dim> dims;
  s.expect('[');
  scan_list(s, ']', [&] { dims.push_back(s.dim()); });
  return dims;
}

double scan_real(Scanner& s) {
  if (!s.take_hex_prefix()) return s.real<double>();
  const std::uint64_t code = s.hex();
  double value;
  std::memcpy(&value, &code, sizeof(value));
  return value;
}

bool scan_bool(Scanner& s) {
  if (s.take_word("true")) return true;
  if (!s.take_word("false")) s.refuse("true or false");
  return false;
}

}  // namespace

void set_element_bits(DType dtype, std::byte* data, std::int64_t index, std::uint64_t code) {
  const int size = bits(dtype);
  if (size == 4) return store_int(DType::u4, data, index, static_cast<std::int64_t>(code & 15));
  std::memcpy(data + index * (size / 8), &code, static_cast<std::size_t>(size / 8));
}

namespace {

// The bits of one element of `dtype`.
std::uint64_t scan_element(Scanner& s, DType dtype) {
  const std::size_t start = s.position();
  const int size = bits(dtype);
  if (s.take_hex_prefix()) {
    const std::uint64_t code = s.hex();
    if (size < 64 && code >> size) s.refuse_at(start, fmt::format("the bits do not fit {}", to_string(dtype)));
    return code;
  }
  std::byte memory[8] = {};
  if (dtype == DType::boolean) return scan_bool(s) ? 1 : 0;
  if (is_float(dtype)) {
    store_element(dtype, memory, 0, dtype == DType::f64 ? s.real<double>() : static_cast<double>(s.real<float>()));
  } else if (dtype == DType::u64) {
    return s.unsigned_integer("an integer");
  } else {
    const std::int64_t value = s.integer("an integer");
    store_int(dtype, memory, 0, value);
    if (load_int(dtype, memory, 0) != value) s.refuse_at(start, fmt::format("{} does not fit {}", value, to_string(dtype)));
  }
  std::uint64_t code;
  std::memcpy(&code, memory, sizeof(code));
  return size == 4 ? code & 15 : code;
}

Tensor from_hex(Scanner& s, DType dtype, const Shape& shape, std::size_t size) {
  const std::size_t start = s.position();
  const std::string digits = s.quoted("the bytes in quotes");
  if (digits.size() != 2 * size) s.refuse_at(start, fmt::format("{} hexadecimal digits, expected {}", digits.size(), 2 * size));
  Tensor tensor(dtype, shape);
  for (std::size_t i = 0; i < size; ++i) {
    const auto digit = [&](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
    const int high = digit(digits[2 * i]), low = digit(digits[2 * i + 1]);
    if (high < 0 || low < 0) s.refuse_at(start, "hexadecimal digits in lower case expected");
    tensor.mutable_data()[i] = static_cast<std::byte>(high * 16 + low);
  }
  return tensor;
}

// Takes memory only for what the text itself holds, but for small tensors that repeat one element.
Tensor from_elements(Scanner& s, DType dtype, const Shape& shape, std::int64_t count, std::size_t size) {
  const std::size_t start = s.position();
  std::vector<std::uint64_t> codes;
  scan_list(s, ')', [&] { codes.push_back(scan_element(s, dtype)); });
  const bool splat = codes.size() == 1 && size <= kSplatLimit && count > 1;
  if (!splat && static_cast<std::int64_t>(codes.size()) != count)
    s.refuse_at(start, fmt::format("{} elements, expected {}", codes.size(), count));
  Tensor tensor(dtype, shape);
  for (std::int64_t i = 0; i < count; ++i)
    set_element_bits(dtype, tensor.mutable_data(), i, codes[splat ? 0 : static_cast<std::size_t>(i)]);
  return tensor;
}

}  // namespace

DType scan_dtype(Scanner& s) {
  const std::size_t start = s.position();
  const std::string_view word = s.word("an element type");
  return s.at(start, [&] { return parse_dtype(word); });
}

Shape scan_shape(Scanner& s) {
  const std::size_t start = s.position();
  Shape shape = scan_integers(s);
  if (shape.size() > kMaxTextDepth) s.refuse_at(start, "too many dimensions");
  s.at(start, [&] { return element_count(shape); });
  return shape;
}

Type scan_type(Scanner& s) {
  Type type;
  type.dtype = scan_dtype(s);
  type.dims = scan_dims(s);
  return type;
}

Tensor scan_tensor(Scanner& s) {
  const std::size_t start = s.position();
  const DType dtype = scan_dtype(s);
  const Shape shape = scan_shape(s);
  const std::int64_t count = element_count(shape);
  const std::size_t size = s.at(start, [&] { return stored_bytes(dtype, count); });
  s.expect('(');
  if (!s.take_word("hex")) return from_elements(s, dtype, shape, count, size);
  Tensor tensor = from_hex(s, dtype, shape, size);
  s.expect(')');
  return tensor;
}

AttributeValue scan_value(Scanner& s, FieldKind kind) {
  switch (kind) {
    case FieldKind::integer: return s.integer("an integer");
    case FieldKind::real: return scan_real(s);
    case FieldKind::boolean: return scan_bool(s);
    case FieldKind::text: return s.quoted("a string");
    case FieldKind::integers: return scan_integers(s);
    case FieldKind::dim: return s.dim();
    case FieldKind::dims: return scan_dims(s);
    case FieldKind::dtype: return scan_dtype(s);
    case FieldKind::tensor: return scan_tensor(s);
    case FieldKind::rank_lists: break;
  }
  RankLists lists;
  s.expect('[');
  scan_list(s, ']', [&] { lists.push_back(scan_integers(s)); });
  return lists;
}

namespace {

std::string scan_axis(Scanner& s) { return s.peek() == '"' ? s.quoted("a mesh axis") : std::string(s.word("a mesh axis")); }

DimSharding scan_factors(Scanner& s) {
  DimSharding factors;
  if (s.take('_')) return factors;
  do {
    Factor factor;
    s.expect('(');
    factor.size = s.dim();
    s.expect(')');
    while (s.take(':')) factor.axes.push_back(scan_axis(s));
    factors.push_back(std::move(factor));
  } while (s.take('.'));
  return factors;
}

}  // namespace

Sharding scan_sharding(Scanner& s) {
  Sharding sharding;
  s.expect('{');
  if (s.peek() != ';' && s.peek() != '}') {
    do sharding.dims.push_back(scan_factors(s));
    while (s.take(','));
  }
  while (s.take(';')) {
    const bool partial = s.take_word("partial");
    if (!partial && !s.take_word("varying")) s.refuse("partial(…) or varying(…)");
    s.expect('(');
    std::string axis = scan_axis(s);
    if (partial) {
      s.expect(':');
      const std::size_t start = s.position();
      const std::string_view word = s.word("a reduction");
      sharding.partial.push_back({std::move(axis), s.at(start, [&] { return parse_reduction(word); })});
    } else {
      sharding.varying.push_back(std::move(axis));
    }
    s.expect(')');
  }
  s.expect('}');
  return sharding;
}

Sharding parse_sharding(std::string_view text) {
  Scanner scanner(text);
  Sharding sharding = scan_sharding(scanner);
  if (scanner.peek() != '\0') scanner.refuse("the end");
  return sharding;
}

}  // namespace tandem
