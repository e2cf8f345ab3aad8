#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "device/cuda/fault.h"
#include "device/cuda/start.h"
#include "ops/divisor_cuda.h"
#include "tandem/types.h"

namespace tandem::cuda {

// Blocks of `vectors` · `bytes` bytes that are moved whole, at most 16 bytes (a power of two) at once: `rows` of them are written one after
// the other, those from `first` on by this launch. rows and items (rows of a launch · vectors) are at most kMostItems.
struct BlockMove {
  int bytes = 1;
  Divisor vectors;
  std::int64_t rows = 0, first = 0;
  std::uint32_t items = 0;
};

// Row (o, k) of the result is row indices[k] of part o of the table; zeros where the table has only rows base … base+extent of `whole` and
// the index names another. An index outside `whole` goes to `fault`.
struct GatherView {
  BlockMove move;
  Divisor count;  // indices
  std::int64_t base = 0, extent = 0, whole = 0;
  DType index_dtype = DType::i64;
};
void launch_gather(const GatherView& view, const void* table, const void* indices, void* out, Fault* fault, const Start& start);

// Row n of one side is block Σ index·stride of the other, in blocks, plus the batch's.
inline constexpr int kTupleLength = 8;
struct TupleView {
  BlockMove move;
  int length = 0;
  std::int64_t extents[kTupleLength] = {}, strides[kTupleLength] = {};
  Divisor per_batch;
  std::int64_t batch_step = 0;
  DType index_dtype = DType::i64;
};
void launch_gather_nd(const TupleView& view, const void* data, const void* indices, void* out, Fault* fault, const Start& start);

// Writes the rows to the blocks; of rows for one block the last stays. `winners`: one word per block, all 0; null where no two rows meet.
void launch_scatter_nd(const TupleView& view, const void* updates, const void* indices, void* out, std::uint32_t* winners, Fault* fault,
                       cudaStream_t stream);

// Element i of the result is data[walk(i) + indices[i] · step], the walk over the extents, innermost first.
inline constexpr int kWalkRank = 8;
struct ElementsView {
  int bytes = 1, rank = 0;
  std::uint32_t items = 0;
  Divisor extents[kWalkRank];
  std::int64_t strides[kWalkRank] = {};
  std::int64_t extent = 0, step = 0;
  DType index_dtype = DType::i64;
};
void launch_gather_elements(const ElementsView& view, const void* data, const void* indices, void* out, Fault* fault, const Start& start);

}  // namespace tandem::cuda
