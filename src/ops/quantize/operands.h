// Operands of DequantMatMul and QuantMatMul; those they share with MatMul come first, in MatMul's order.
#pragma once

#include <cstddef>

#include "ops/quantize/scales.h"

namespace tandem {

inline constexpr std::size_t kDequantA = 0, kDequantB = 1, kDequantBias = 2, kDequantResidual = 3, kDequantScale = 4, kDequantZero = 5;
// Of QuantMatMul, which has no zero points: the scale of a.
inline constexpr std::size_t kQuantScaleA = 5;

}  // namespace tandem
