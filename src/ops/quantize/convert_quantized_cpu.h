// Quantised numbers as f32 and back, vectorised.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tandem/types.h"

namespace tandem {

// Integers of 4, 8, 16 and 32 bits and 8-bit floats.
bool converts_quantized(DType type);
// Elements first … first + count of `from`. i32 is rounded to f32.
void quantized_to_floats(DType type, const std::byte* from, std::int64_t first, float* to, std::int64_t count);
// Elements first … first + count of `to`, of whole numbers within the range of the type (not i32), for 8-bit floats of any within their
// range or NaN, which are rounded to nearest even. Of 4-bit numbers the neighbour in a byte stays, so that two threads must not share one.
void floats_to_quantized(DType type, const float* from, std::byte* to, std::int64_t first, std::int64_t count);

}  // namespace tandem
