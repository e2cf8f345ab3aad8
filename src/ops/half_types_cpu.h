// The 16-bit floats as types, so that kernels can be templates over what memory holds.
#pragma once

#include <cstdint>

#include "tandem/types.h"

namespace tandem {

struct F16 {
  std::uint16_t bits;
};
struct Bf16 {
  std::uint16_t bits;
};

// The dtypes that the vector kernels read and write, doing arithmetic in f32.
inline bool is_vector_float(DType type) { return type == DType::f32 || type == DType::f16 || type == DType::bf16; }

// Calls f with a null pointer of the C++ type that `type` is; `type` must be a vector float.
template <typename F>
decltype(auto) with_float_type(DType type, F&& f) {
  if (type == DType::f16) return f(static_cast<F16*>(nullptr));
  if (type == DType::bf16) return f(static_cast<Bf16*>(nullptr));
  return f(static_cast<float*>(nullptr));
}

}  // namespace tandem
