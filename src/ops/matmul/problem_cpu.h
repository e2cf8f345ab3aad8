// MatMul as kernels see it: numbers, with batches flattened where the second operand allows it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/op_def.h"
#include "ops/matmul/activation.h"

namespace tandem {

struct MatMulProblem {
  DType dtype = DType::f32;
  std::int64_t m = 0, k = 0, n = 0;
  // Offsets in elements of each product's a [m,k], b [k,n] and result [m,n]; one entry where b is one matrix.
  struct Offsets {
    std::int64_t a, b, c;
  };
  std::vector<Offsets> products;
  Activation activation = Activation::none;
  bool bias = false;      // [n], added before the activation
  bool residual = false;  // shaped as the result, added after it
};

// Of a word that MatMul and Conv have.
Activation activation_of(const std::string& word);

// Indices of MatMul's operands.
inline constexpr std::size_t kMatMulA = 0, kMatMulB = 1, kMatMulBias = 2, kMatMulResidual = 3;

// `call` must be bound and not refused by matmul_refusal().
MatMulProblem matmul_problem(const OpCall& call);
// What none of the matrix kernels can do; null if they can.
std::optional<std::string> matmul_refusal(const OpCall& call);
// b is one [k,n] matrix, whatever the batch dimensions of a.
bool is_single_matrix(const Type& b);

}  // namespace tandem
