// Products with strips of a quantised matrix: 32 columns whose rows lie one behind the other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/matmul/activation.h"
#include "tandem/types.h"

namespace tandem {

inline constexpr std::int64_t kStripColumns = 32;

struct DequantStrip {
  DType type;           // of b
  const std::byte* b;   // [k, 32]
  const float* scales;  // [⌈k/block⌉, 32]
  const float* zeros;   // like the scales, or null
  std::int64_t k, block;
};

// sums[i][32] = Σ of rows i of a, `a_step` floats apart, times the strip; `rows` is 1 or 4.
void multiply_strip(const DequantStrip& strip, const float* a, std::int64_t a_step, std::int64_t rows, float* sums);
// floats[k][32] = the strip, dequantised.
void dequantize_strip(const DequantStrip& strip, float* floats);
// The same as multiply_strip() with a strip of floats; `rows` is 1 or 6.
void multiply_floats(const float* b, std::int64_t k, const float* a, std::int64_t a_step, std::int64_t rows, float* sums);

}  // namespace tandem
