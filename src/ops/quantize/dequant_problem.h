// DequantMatMul and QuantMatMul as kernels see them: numbers, with batches of a flattened.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "graph/op_def.h"
#include "ops/matmul/activation.h"
#include "ops/quantize/operands.h"

namespace tandem {

struct DequantProblem {
  DType type = DType::f32, b = DType::i8, scale = DType::f32;  // of bias, residual and result; of b and zero points; of scales
  DType a = DType::f32, scale_a = DType::f32;                  // of a, which is `type` unless a is quantised too; of its one scale
  std::int64_t m = 0, k = 0, n = 0;
  std::int64_t block = 1;                        // rows of b that share scales
  std::int64_t scale_row = 0, scale_column = 0;  // scale of block i and column j: i·scale_row + j·scale_column
  bool both = false;                             // a is quantised too
  bool zero = false, bias = false, residual = false;
  Activation activation = Activation::none;

  std::int64_t blocks() const { return k == 0 ? 0 : (k + block - 1) / block; }
};

// `call` must be bound and not refused by dequant_refusal().
DequantProblem dequant_problem(const OpCall& call);
// What none of the kernels can do; null if they can.
std::optional<std::string> dequant_refusal(const OpCall& call);

}  // namespace tandem
