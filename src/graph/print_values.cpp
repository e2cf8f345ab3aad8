#include <cmath>
#include <cstring>

#include "core/check.h"
#include "graph/text.h"
#include "graph/text_values.h"

namespace tandem {

std::uint64_t element_bits(const Tensor& tensor, std::int64_t index) {
  const int size = bits(tensor.dtype());
  if (size == 4) return static_cast<std::uint64_t>(load_int(DType::u4, tensor.data(), index));
  std::uint64_t value = 0;
  std::memcpy(&value, tensor.data() + index * (size / 8), static_cast<std::size_t>(size / 8));
  return value;
}

std::string print_real(double value) {
  if (!std::isnan(value)) return fmt::format("{}", value);
  std::uint64_t code;
  std::memcpy(&code, &value, sizeof(code));
  return fmt::format("0x{:x}", code);
}

namespace {

constexpr std::int64_t kWrittenOut = 256;  // elements; more are written as bytes

std::string print_element(const Tensor& tensor, std::int64_t index) {
  const DType dtype = tensor.dtype();
  const std::uint64_t code = element_bits(tensor, index);
  if (dtype == DType::boolean && code < 2) return code ? "true" : "false";
  const double value = is_float(dtype) ? tensor.at(index) : 0;
  if (std::isnan(value) || dtype == DType::boolean) return fmt::format("0x{:x}", code);
  if (dtype == DType::f64) return fmt::format("{}", value);
  if (is_float(dtype)) return fmt::format("{}", static_cast<float>(value));
  if (dtype == DType::u64) return fmt::format("{}", code);
  return fmt::format("{}", tensor.int_at(index));
}

bool is_splat(const Tensor& tensor) {
  if (tensor.count() < 2 || tensor.size_bytes() > kSplatLimit) return false;
  for (std::int64_t i = 1; i < tensor.count(); ++i)
    if (element_bits(tensor, i) != element_bits(tensor, 0)) return false;
  return true;
}

std::string axes_suffix(const std::vector<std::string>& axes) {
  std::string text;
  for (const std::string& a : axes) text += ":" + plain_name(a);
  return text;
}

}  // namespace

std::string print_tensor(const Tensor& tensor) {
  std::string text = fmt::format("{}{}(", to_string(tensor.dtype()), to_string(tensor.shape()));
  if (is_splat(tensor)) {
    text += print_element(tensor, 0);
  } else if (tensor.count() > kWrittenOut) {
    text += "hex \"";
    for (const std::byte b : tensor.bytes()) fmt::format_to(std::back_inserter(text), "{:02x}", std::to_integer<int>(b));
    text += "\"";
  } else {
    for (std::int64_t i = 0; i < tensor.count(); ++i) text += (i ? ", " : "") + print_element(tensor, i);
  }
  return text + ")";
}

std::string print_value(const AttributeValue& value) {
  return std::visit(
      [](const auto& v) -> std::string {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::int64_t>) return fmt::format("{}", v);
        else if constexpr (std::is_same_v<T, double>) return print_real(v);
        else if constexpr (std::is_same_v<T, bool>) return v ? "true" : "false";
        else if constexpr (std::is_same_v<T, std::string>) return quote(v);
        else if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) return fmt::format("[{}]", fmt::join(v, ","));
        else if constexpr (std::is_same_v<T, Dim>) return v.to_string();
        else if constexpr (std::is_same_v<T, std::vector<Dim>>) return to_string(v);
        else if constexpr (std::is_same_v<T, DType>) return std::string(to_string(v));
        else if constexpr (std::is_same_v<T, Tensor>) return print_tensor(v);
        else {
          std::string text = "[";
          for (const auto& ranks : v) text += fmt::format("{}[{}]", text.size() > 1 ? "," : "", fmt::join(ranks, ","));
          return text + "]";
        }
      },
      value);
}

std::string print_sharding(const Sharding& s) {
  std::string text = "{";
  for (std::size_t i = 0; i < s.dims.size(); ++i) {
    if (i) text += ",";
    if (s.dims[i].empty()) text += "_";
    for (std::size_t j = 0; j < s.dims[i].size(); ++j)
      text += fmt::format("{}({}){}", j ? "." : "", s.dims[i][j].size.to_string(), axes_suffix(s.dims[i][j].axes));
  }
  for (const Partial& p : s.partial) text += fmt::format(";partial({}:{})", plain_name(p.axis), to_string(p.reduction));
  for (const std::string& v : s.varying) text += fmt::format(";varying({})", plain_name(v));
  return text + "}";
}

std::string print_recipe(const Recipe& r) {
  using Kind = Recipe::Kind;
  const auto of = [&] { return print_recipe(*r.inputs.at(0)); };
  const auto extent = [&] { return r.shape.at(static_cast<std::size_t>(r.axis)); };
  switch (r.kind) {
    case Kind::source: return fmt::format("source({}, {}{})", quote(r.source), to_string(r.dtype), to_string(r.shape));
    case Kind::slice: return fmt::format("slice({}, {}, {}, {})", of(), r.axis, r.begin.to_string(), extent());
    case Kind::transpose: return fmt::format("transpose({}, {})", of(), to_string(r.permutation));
    case Kind::reshape: return fmt::format("reshape({}, {})", of(), to_string(r.shape));
    case Kind::cast: return fmt::format("cast({}, {})", of(), to_string(r.dtype));
    case Kind::pad: return fmt::format("pad({}, {}, {})", of(), r.axis, extent());
    case Kind::concat: break;
  }
  std::string text = fmt::format("concat({}", r.axis);
  for (const RecipePtr& p : r.inputs) text += ", " + print_recipe(*p);
  return text + ")";
}

std::string print(const Recipe& recipe) { return print_recipe(recipe); }

std::string print(const Type& type, const Sharding& sharding) {
  return sharding == Sharding{} ? type.to_string() : type.to_string() + print_sharding(sharding);
}

}  // namespace tandem
