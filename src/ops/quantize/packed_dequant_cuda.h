#pragma once

#include "ops/matmul/packed_rows_cuda.h"

namespace tandem::cuda {

inline constexpr int kDequantTiles[] = {4, 8, 16};       // of a block
inline constexpr int kDequantBlockTiles[] = {4, 8, 12};  // with scales of blocks, whose sums need more registers

// Of x in f16 or bf16 and codes of 4 or 8 bits, integers stored as unsigned ones `offset` larger; `groups` groups of rows of b in each
// chunk have scales of their own: 0, 1, 2, and of 4 bits 4. prepare… once per GPU before the first launch.
struct PackedDequant {
  DType type, codes;
  int groups, tiles;
};
cudaError_t prepare_packed_dequant(const PackedDequant& form);
void launch_packed_dequant(const PackedDequant& form, const PackedRows& p, const Start& start);

// Scales of `type`, that of group i and column j at i·row + j·column, to [⌈n/kScaleColumns⌉, groups, kScaleColumns]; zeros past
// `given` groups and n.
struct ScalesToPack {
  const void* scale;
  float* to;
  std::int64_t row, column, given, groups, n;
  DType type;
};
void launch_pack_scales(const ScalesToPack& s, cudaStream_t stream);

}  // namespace tandem::cuda
