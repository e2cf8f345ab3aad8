#include "ops/pointwise/pointwise_source_cuda.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/check.h"

namespace tandem::pointwise {
namespace {

// The type in memory.
std::string_view stored(DType type) {
  switch (type) {
    case DType::f32: return "float";
    case DType::f64: return "double";
    case DType::f16:
    case DType::bf16:
    case DType::u16: return "unsigned short";
    case DType::f8e4m3:
    case DType::f8e5m2:
    case DType::boolean:
    case DType::u8: return "unsigned char";
    case DType::i8: return "signed char";
    case DType::i16: return "short";
    case DType::i32: return "int";
    case DType::u32: return "u32";
    case DType::i64: return "i64";
    case DType::u64: return "u64";
    default: fail(ErrorCode::internal, "no CUDA type for {}", to_string(type));
  }
}

// Floats that have a conversion of their own: load_f16, store_f16.
bool is_small_float(DType type) { return is_float(type) && type != DType::f32 && type != DType::f64; }

// The type that values are computed in.
std::string_view computed(DType type) {
  if (type == DType::f64) return "double";
  if (is_float(type)) return "float";
  return type == DType::boolean ? "bool" : "i64";
}

std::string loaded(DType type, const std::string& x) {
  if (is_small_float(type)) return fmt::format("load_{}({})", to_string(type), x);
  if (type == DType::boolean) return fmt::format("{} != 0", x);
  return fmt::format("({}){}", computed(type), x);
}

std::string stored_as(DType type, const std::string& x) {
  if (is_small_float(type)) return fmt::format("store_{}({})", to_string(type), x);
  return fmt::format("({}){}", stored(type), x);
}

// What is left of a value that passed through memory of an integer type.
std::string wrapped(DType type, const std::string& x) {
  return type == DType::i64 || type == DType::u64 ? x : fmt::format("(i64)({})({})", stored(type), x);
}

std::string literal(DType type, double number) {
  if (type == DType::f64) return fmt::format("__longlong_as_double(0x{:x}ll)", std::bit_cast<std::uint64_t>(number));
  if (is_float(type)) return fmt::format("__uint_as_float(0x{:x}u)", std::bit_cast<std::uint32_t>(static_cast<float>(number)));
  if (!(number > -0x1p63)) return "(-9223372036854775807ll - 1)";
  return fmt::format("{}ll", number < 0x1p63 ? static_cast<std::int64_t>(number) : std::numeric_limits<std::int64_t>::max());
}

std::string limits(DType type) {
  const int width = bits(type);
  const bool is_signed = type == DType::i8 || type == DType::i16 || type == DType::i32 || type == DType::i64;
  const std::uint64_t most = (~std::uint64_t{0}) >> (64 - width + (is_signed ? 1 : 0));
  return fmt::format("{}, {}ll", is_signed ? fmt::format("(-{}ll - 1)", most) : "0ll", most);
}

std::string cast(DType from, DType to, const std::string& x) {
  if (to == DType::boolean) return fmt::format("{} != 0", x);
  if (is_float(to)) {
    // Through f64 as Tensor::converted does, which matters where 64 bits are more than f64 holds.
    const std::string real = is_float(from) ? x : fmt::format("(double){}", x);
    if (to == DType::f64) return fmt::format("(double){}", real);
    return to == DType::f32 ? fmt::format("(float)({})", real) : fmt::format("load_{0}(store_{0}((float)({1})))", to_string(to), real);
  }
  if (!is_float(from)) return wrapped(to, fmt::format("(i64){}", x));
  return to == DType::u64 ? fmt::format("saturated_u64({})", x) : fmt::format("saturated({}, {})", x, limits(to));
}

bool divides(Function function) { return function == Function::Div || function == Function::Mod || function == Function::FMod; }

bool is_16_bit_float(DType type) { return type == DType::f16 || type == DType::bf16; }

// Those that the prelude has a second time, exact enough for 16 bits.
bool has_quick(Function function) {
  constexpr Function kQuick[] = {Function::Div,        Function::Exp,     Function::Gelu, Function::GeluTanh, Function::HardSwish,
                                 Function::Reciprocal, Function::Sigmoid, Function::Silu, Function::Sqrt,     Function::Tanh};
  return std::ranges::find(kQuick, function) != std::end(kQuick);
}

// Where a small error may become a large one.
bool jumps(Function function) {
  constexpr Function kJumps[] = {Function::Ceil, Function::Floor, Function::FMod, Function::Mod, Function::Round, Function::Sign};
  return std::ranges::find(kJumps, function) != std::end(kJumps);
}

// Whether quick functions will do: nothing but 16-bit floats, and conditions that are operands.
bool is_quick(const PointwiseForm& form, const std::vector<DType>& types) {
  return is_16_bit_float(form.result) && std::ranges::all_of(types, is_16_bit_float) &&
         std::ranges::all_of(form.dtypes, [](DType type) { return is_16_bit_float(type) || type == DType::boolean; }) &&
         std::ranges::none_of(form.program.statements, [](const Statement& s) { return jumps(s.function); });
}

class Writer {
 public:
  Writer(const PointwiseForm& form, const std::string& name)
      : f_(form), name_(name), types_(form.program.types(form.dtypes)), quick_(is_quick(form, types_)) {}

  std::string text() {
    line("extern \"C\" __global__ void __launch_bounds__({}) {}(const __grid_constant__ Args p) {{", kPointwiseThreads, name_);
    line("  begin_dependent();");
    line("  typedef {} Index;", f_.wide ? "u64" : "u32");
    line("  const Index v = (Index)blockIdx.x * {}u + threadIdx.x;", kPointwiseThreads);
    line("  if (v >= p.vectors) return;");
    line("  const i64 i = (i64)v * {}, rest = (i64)p.count - i;", f_.vector);
    line("  const bool whole = p.aligned && rest >= {};", f_.vector);
    write_places();
    write_loads();
    line("  {} y;", pack(f_.result));
    line("#pragma unroll");
    line("  for (int j = 0; j < {}; ++j) {{", f_.vector);
    for (std::size_t n = 0; n < f_.dtypes.size(); ++n)
      line("    const {} a{} = {};", computed(f_.dtypes[n]), n, loaded(f_.dtypes[n], element(n)));
    for (std::size_t n = 0; n < types_.size(); ++n) line("    const {} t{} = {};", computed(types_[n]), n, statement(n));
    line("    y.at[j] = {};", stored_as(f_.result, fmt::format("t{}", types_.size() - 1)));
    line("  }}");
    line("  {}* out = ({}*)p.out + i;", stored(f_.result), stored(f_.result));
    line("  if (whole) *({}*)out = y; else store_part(out, y, rest);", pack(f_.result));
    line("}}");
    return text_;
  }

 private:
  template <typename... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    text_ += fmt::format(format, std::forward<Args>(args)...) + "\n";
  }

  bool has_place(std::size_t n) const { return f_.ways[n] != Way::dense && f_.ways[n] != Way::scalar; }

  // o<n>: the element of operand n that the thread's first result element reads.
  void write_places() {
    bool any = false;
    for (std::size_t n = 0; n < f_.ways.size(); ++n) any = any || has_place(n);
    if (!any) return;
    line("  Index outer = divide_index(v, p.inner, p.inner_multiplier, p.inner_shift), index = v - outer * (Index)p.inner;");
    for (std::size_t n = 0; n < f_.ways.size(); ++n) {
      if (!has_place(n)) continue;
      if (f_.ways[n] == Way::columns) line("  i64 o{} = 0;", n);
      else line("  i64 o{} = (i64)index * {} * p.strides[{}][{}];", n, f_.vector, n, kMostDims);
    }
    for (int d = f_.dims; d-- > 0;) {
      if (d == 0) line("  index = outer;");
      else
        line(
            "  index = outer; outer = divide_index(outer, p.extents[{0}], p.multipliers[{0}], p.shifts[{0}]); index -= outer * "
            "(Index)p.extents[{0}];",
            d);
      for (std::size_t n = 0; n < f_.ways.size(); ++n)
        if (has_place(n)) line("  o{} += (i64)index * p.strides[{}][{}];", n, n, d);
    }
  }

  bool is_pack(std::size_t n) const { return f_.ways[n] == Way::dense || f_.ways[n] == Way::rows; }
  std::string pack(DType type) const { return fmt::format("Pack<{}, {}>", stored(type), f_.vector); }

  // x<n>: what the thread reads of operand n. All loads go out before anything is computed.
  void write_loads() {
    std::string whole, part;
    for (std::size_t n = 0; n < f_.ways.size(); ++n) {
      const std::string at = f_.ways[n] == Way::dense ? "i" : f_.ways[n] == Way::scalar ? "0" : fmt::format("o{}", n);
      line("  const {0}* from{1} = (const {0}*)p.in[{1}] + {2};", stored(f_.dtypes[n]), n, at);
      if (!is_pack(n)) {
        line("  const {} x{} = *from{};", stored(f_.dtypes[n]), n, n);
        continue;
      }
      line("  {} x{};", pack(f_.dtypes[n]), n);
      whole += fmt::format(" x{0} = *(const {1}*)from{0};", n, pack(f_.dtypes[n]));
      part += fmt::format(" load_part(x{0}, from{0}, rest);", n);
    }
    if (!whole.empty()) line("  if (whole) {{{} }} else {{{} }}", whole, part);
  }

  std::string element(std::size_t n) const { return is_pack(n) ? fmt::format("x{}.at[j]", n) : fmt::format("x{}", n); }

  std::string statement(std::size_t n) const {
    const Statement& s = f_.program.statements[n];
    const DType value = f_.program.number_type(n, f_.dtypes, types_);
    std::vector<std::string> x;
    for (std::size_t i = 0; i < s.arguments.size(); ++i) {
      const Argument& a = s.arguments[i];
      if (a.kind == Argument::Kind::number) {
        x.push_back(literal(value, a.number));
        continue;
      }
      const std::string name = fmt::format("{}{}", a.kind == Argument::Kind::operand ? 'a' : 't', a.index);
      const bool condition = s.function == Function::Where && i == 0;
      x.push_back(value == DType::boolean && !condition && s.function != Function::Cast ? fmt::format("(i64){}", name) : name);
    }
    if (s.function == Function::Cast) return cast(value, s.to, x[0]);
    const Argument& last = s.arguments.back();
    if (s.function == Function::Pow && is_float(value) && last.kind == Argument::Kind::number) {
      if (last.number == 2) return fmt::format("{0} * {0}", x[0]);
      if (last.number == 3) return fmt::format("{0} * {0} * {0}", x[0]);
    }
    const bool whole = !is_float(value);
    if (whole && divides(s.function)) x.emplace_back("p.fault");
    const std::string call = fmt::format("{}{}({})", flavour(s.function), to_string(s.function), fmt::join(x, ", "));
    if (types_[n] == DType::boolean) return value == DType::boolean && s.function == Function::Where ? call + " != 0" : call;
    return whole ? wrapped(types_[n], call) : call;
  }

  std::string_view flavour(Function function) const {
    if (!quick_ || !has_quick(function)) return "";
    const bool is_coarse = function == Function::Tanh && f_.result == DType::bf16 && std::ranges::find(types_, DType::f16) == types_.end();
    return is_coarse ? "Coarse" : "Quick";
  }

  const PointwiseForm& f_;
  const std::string& name_;
  std::vector<DType> types_;
  bool quick_;
  std::string text_;
};

}  // namespace

std::string pointwise_kernel(const PointwiseForm& form, const std::string& name) { return Writer(form, name).text(); }

bool can_be_source(DType type) { return bits(type) >= 8; }

}  // namespace tandem::pointwise
