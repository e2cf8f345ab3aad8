// f32 copies of f16 and bf16 memory and back, vectorised, rounding to nearest even.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tandem/types.h"

namespace tandem {

// `type` is f32, f16 or bf16. No alignment is asked for.
void to_floats(DType type, const std::byte* from, float* to, std::int64_t count);
void from_floats(DType type, const float* from, std::byte* to, std::int64_t count);
// to = from + add, both in memory of `type` but for `from`; `add` may be null.
void from_floats_plus(DType type, const float* from, const std::byte* add, std::byte* to, std::int64_t count);

}  // namespace tandem
