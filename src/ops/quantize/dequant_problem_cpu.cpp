#include <algorithm>

#include "ops/half_types_cpu.h"
#include "ops/matmul/problem_cpu.h"
#include "ops/ops.h"
#include "ops/quantize/dequant_problem.h"

namespace tandem {

std::optional<std::string> dequant_refusal(const OpCall& call) {
  const bool both = call.op == &ops::QuantMatMul;
  if (!is_vector_float(call.results.at(0).dtype)) return both ? "it gives f32, f16 and bf16 only" : "it multiplies f32, f16 and bf16 only";
  if (both && !is_vector_float(call.operand(kQuantScaleA).dtype)) return "it takes scales of f32, f16 and bf16 only";
  if (!is_vector_float(call.operand(kDequantScale).dtype)) return "it takes scales of f32, f16 and bf16 only";
  const Type& b = call.operand(kDequantB);
  if (bits(b.dtype) > 8) return "it reads weights of 4 and 8 bits only";
  if (bits(b.dtype) == 4 && !b.dims[1].exact_divide(2)) return "rows of b end inside a byte";
  if (call.has_operand(kDequantResidual) && call.operand(kDequantResidual).dims != call.results.at(0).dims)
    return "the residual is not shaped as the result";
  return std::nullopt;
}

DequantProblem dequant_problem(const OpCall& call) {
  DequantProblem p;
  const Shape a = shape_of(call.operand(kDequantA)), b = shape_of(call.operand(kDequantB));
  p.both = call.op == &ops::QuantMatMul;
  p.type = call.results.at(0).dtype;
  p.a = call.operand(kDequantA).dtype;
  if (p.both) p.scale_a = call.operand(kQuantScaleA).dtype;
  p.b = call.operand(kDequantB).dtype;
  const Type& scale = call.operand(kDequantScale);
  p.scale = scale.dtype;
  p.k = b[0];
  p.n = b[1];
  p.m = element_count({a.begin(), a.end() - 1});
  const std::int64_t block = p.both ? 0 : call.attributes.integer("block_size");
  p.block = std::max<std::int64_t>(1, block != 0 ? std::min(block, p.k) : p.k);
  if (!is_one_number(scale)) {
    p.scale_column = 1;
    p.scale_row = block != 0 ? p.n : 0;
  }
  p.zero = !p.both && call.has_operand(kDequantZero);
  p.bias = call.has_operand(kDequantBias);
  p.residual = call.has_operand(kDequantResidual);
  p.activation = activation_of(call.attributes.text("activation"));
  return p;
}

}  // namespace tandem
