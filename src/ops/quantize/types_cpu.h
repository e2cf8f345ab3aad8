// Quantised numbers as types, so that kernels can be templates over what memory holds.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/check.h"
#include "tandem/types.h"

namespace tandem {

struct F8e4m3 {
  std::uint8_t bits;
};
struct F8e5m2 {
  std::uint8_t bits;
};
// Two numbers to a byte, the first in the low half.
struct I4x2 {
  std::uint8_t bits;
};
struct U4x2 {
  std::uint8_t bits;
};

template <typename T>
inline constexpr bool is_pair = std::is_same_v<T, I4x2> || std::is_same_v<T, U4x2>;

// Calls f with a null pointer of the C++ type that holds `type`.
template <typename F>
decltype(auto) with_quantized_type(DType type, F&& f) {
  switch (type) {
    case DType::i8: return f(static_cast<std::int8_t*>(nullptr));
    case DType::u8: return f(static_cast<std::uint8_t*>(nullptr));
    case DType::i16: return f(static_cast<std::int16_t*>(nullptr));
    case DType::u16: return f(static_cast<std::uint16_t*>(nullptr));
    case DType::i32: return f(static_cast<std::int32_t*>(nullptr));
    case DType::f8e4m3: return f(static_cast<F8e4m3*>(nullptr));
    case DType::f8e5m2: return f(static_cast<F8e5m2*>(nullptr));
    case DType::i4: return f(static_cast<I4x2*>(nullptr));
    case DType::u4: return f(static_cast<U4x2*>(nullptr));
    default: fail(ErrorCode::internal, "{} holds no quantised numbers", to_string(type));
  }
}

}  // namespace tandem
