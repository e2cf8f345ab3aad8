#pragma once

#include <cuda_runtime.h>

#include "ops/reduce/plan_cuda.h"
#include "tandem/types.h"

namespace tandem::cuda {

enum class ReduceKind : std::uint8_t { sum, mean, max, min, prod, l1, l2, sum_square, log_sum, log_sum_exp };

// f32, f16 and bf16 are summed in f32, f64 in f64. `parts`: reduce_workspace() bytes. The order of sums is that of the plan.
void launch_reduce(const ReducePlan& plan, ReduceKind kind, DType dtype, const void* x, void* y, void* parts, cudaStream_t stream);
// Integers, as 64-bit ones that wrap; not l2, log_sum, log_sum_exp.
void launch_reduce_integers(const ReducePlan& plan, ReduceKind kind, DType dtype, const void* x, void* y, void* parts, cudaStream_t stream);
// The i64 index of the largest (or smallest) element of each row or column of the plan; NaN counts as such. Of equal ones the first, or
// `last`.
void launch_arg_reduce(const ReducePlan& plan, bool max, bool last, DType dtype, const void* x, void* y, void* parts, cudaStream_t stream);

}  // namespace tandem::cuda
