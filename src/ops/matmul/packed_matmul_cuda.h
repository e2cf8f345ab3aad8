#pragma once

#include "ops/matmul/packed_rows_cuda.h"

namespace tandem::cuda {

inline constexpr int kMatMulChunk = 64;                    // rows of b
inline constexpr int kMatMulTiles[] = {4, 8, 12, 14, 16};  // of a block

// Of f16 or bf16. prepare… once per GPU before the first launch.
cudaError_t prepare_packed_matmul(DType dtype, int tiles);
void launch_packed_matmul(DType dtype, int tiles, const PackedRows& p, const Start& start);

}  // namespace tandem::cuda
