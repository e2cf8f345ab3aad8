#include "ops/pointwise/blocks_cpu.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/check.h"
#include "core/tensor.h"
#include "ops/convert_cpu.h"
#include "ops/half_types_cpu.h"

namespace tandem::pointwise {
namespace {

// Calls f with a null pointer of the C++ type of an integer or bool dtype.
template <typename F>
void with_int_type(DType type, F f) {
  switch (type) {
    case DType::boolean:
    case DType::u8: return f(static_cast<std::uint8_t*>(nullptr));
    case DType::i8: return f(static_cast<std::int8_t*>(nullptr));
    case DType::u16: return f(static_cast<std::uint16_t*>(nullptr));
    case DType::i16: return f(static_cast<std::int16_t*>(nullptr));
    case DType::u32: return f(static_cast<std::uint32_t*>(nullptr));
    case DType::i32: return f(static_cast<std::int32_t*>(nullptr));
    case DType::u64:
    case DType::i64: return f(static_cast<std::int64_t*>(nullptr));
    default: fail(ErrorCode::internal, "{} is no integer type of blocks", to_string(type));
  }
}

void cast_from_reals(const float* x, DType to, void* y, std::int64_t count) {
  if (is_real(to)) {
    auto* out = static_cast<float*>(y);
    if (to == DType::boolean) {
      for (std::int64_t i = 0; i < count; ++i) out[i] = x[i] != 0 ? 1.0f : 0.0f;
    } else if (to == DType::f32) {
      std::memmove(out, x, static_cast<std::size_t>(count) * sizeof(float));
    } else {
      std::array<std::byte, 2 * kBlockLength> rounded;
      from_floats(to, x, rounded.data(), count);
      to_floats(to, rounded.data(), out, count);
    }
    return;
  }
  auto* out = static_cast<std::int64_t*>(y);
  std::array<std::byte, 8> memory{};
  for (std::int64_t i = 0; i < count; ++i) {
    store_element(to, memory.data(), 0, x[i]);
    out[i] = load_int(to, memory.data(), 0);
  }
}

void cast_from_ints(const std::int64_t* x, DType to, void* y, std::int64_t count) {
  if (to == DType::boolean) {
    for (std::int64_t i = 0; i < count; ++i) static_cast<float*>(y)[i] = x[i] != 0 ? 1.0f : 0.0f;
  } else if (is_float(to)) {
    for (std::int64_t i = 0; i < count; ++i) static_cast<float*>(y)[i] = static_cast<float>(x[i]);
    if (to != DType::f32) cast_from_reals(static_cast<float*>(y), to, y, count);
  } else {
    with_int_type(to, [&](auto* t) {
      using T = std::remove_pointer_t<decltype(t)>;
      for (std::int64_t i = 0; i < count; ++i) static_cast<std::int64_t*>(y)[i] = static_cast<T>(x[i]);
    });
  }
}

}  // namespace

bool is_block_type(DType type) {
  return is_vector_float(type) || type == DType::boolean || (is_integer(type) && bits(type) >= 8 && type != DType::u64);
}

void run_ints(Function function, const std::int64_t* const* x, std::int64_t* y, std::int64_t count) {
  // The frequent ones as loops that vectorise.
  if (function == Function::Add)
    for (std::int64_t i = 0; i < count; ++i)
      y[i] = static_cast<std::int64_t>(static_cast<std::uint64_t>(x[0][i]) + static_cast<std::uint64_t>(x[1][i]));
  else if (function == Function::Mul)
    for (std::int64_t i = 0; i < count; ++i)
      y[i] = static_cast<std::int64_t>(static_cast<std::uint64_t>(x[0][i]) * static_cast<std::uint64_t>(x[1][i]));
  else {
    const auto n = static_cast<std::size_t>(arity(function));
    std::array<std::int64_t, 3> in{};
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::size_t a = 0; a < n; ++a) in[a] = x[a][i];
      y[i] = apply(function, std::span<const std::int64_t>(in.data(), n));
    }
  }
}

void compare_ints(Function function, const std::int64_t* const* x, float* y, std::int64_t count) {
  const auto compare = [&](auto holds) {
    for (std::int64_t i = 0; i < count; ++i) y[i] = holds(x[0][i], x[1][i]) ? 1.0f : 0.0f;
  };
  switch (function) {
    case Function::Equal: return compare([](std::int64_t a, std::int64_t b) { return a == b; });
    case Function::Greater: return compare([](std::int64_t a, std::int64_t b) { return a > b; });
    case Function::GreaterOrEqual: return compare([](std::int64_t a, std::int64_t b) { return a >= b; });
    case Function::Less: return compare([](std::int64_t a, std::int64_t b) { return a < b; });
    case Function::LessOrEqual: return compare([](std::int64_t a, std::int64_t b) { return a <= b; });
    default: fail(ErrorCode::internal, "{} does not compare", to_string(function));
  }
}

void choose_ints(const float* condition, const std::int64_t* a, const std::int64_t* b, std::int64_t* y, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) y[i] = condition[i] != 0 ? a[i] : b[i];
}

void cast_block(DType from, const void* x, DType to, void* y, std::int64_t count) {
  if (is_real(from)) cast_from_reals(static_cast<const float*>(x), to, y, count);
  else cast_from_ints(static_cast<const std::int64_t*>(x), to, y, count);
}

void load_block(DType type, const std::byte* from, void* block, std::int64_t count) {
  if (is_vector_float(type)) return to_floats(type, from, static_cast<float*>(block), count);
  with_int_type(type, [&](auto* t) {
    const auto* in = reinterpret_cast<decltype(t)>(const_cast<std::byte*>(from));
    if (type == DType::boolean)
      for (std::int64_t i = 0; i < count; ++i) static_cast<float*>(block)[i] = in[i] != 0 ? 1.0f : 0.0f;
    else
      for (std::int64_t i = 0; i < count; ++i) static_cast<std::int64_t*>(block)[i] = static_cast<std::int64_t>(in[i]);
  });
}

void store_block(DType type, const void* block, std::byte* to, std::int64_t count) {
  if (is_vector_float(type)) return from_floats(type, static_cast<const float*>(block), to, count);
  with_int_type(type, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    auto* out = reinterpret_cast<T*>(to);
    if (type == DType::boolean)
      for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<const float*>(block)[i] != 0 ? T{1} : T{0};
    else
      for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<T>(static_cast<const std::int64_t*>(block)[i]);
  });
}

void fill_block(DType type, void* block, std::int64_t count) {
  if (is_real(type)) std::fill_n(static_cast<float*>(block), count, *static_cast<float*>(block));
  else std::fill_n(static_cast<std::int64_t*>(block), count, *static_cast<std::int64_t*>(block));
}

void set_block(DType type, void* block, double number) {
  if (is_real(type)) *static_cast<float*>(block) = static_cast<float>(number);
  else *static_cast<std::int64_t*>(block) = static_cast<std::int64_t>(number);
}

}  // namespace tandem::pointwise
