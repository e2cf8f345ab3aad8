// Copies between strided views of a GPU's memory: what Transpose, Slice, Expand and parts of other kernels come down to. Planned on the
// host once per shape; the kernels are in copy_cuda.cu.
#pragma once

#include <cstdint>
#include <vector>

#include "device/cuda/start.h"
#include "ops/aligned_cuda.h"
#include "ops/divisor_cuda.h"
#include "tandem/types.h"

namespace tandem::cuda {

// One dimension of a copy, strides in elements.
struct CopyAxis {
  std::int64_t extent, from, to;
};

inline constexpr int kCopyRank = 8;

// What one launch does. Offsets and strides count elements of `bytes`, which may be several of the tensor's.
struct CopyPart {
  enum class Kind : std::uint8_t {
    elements,  // one item: one element from here to there
    gathered,  // one item: 16 bytes of elements `step` apart in the source, side by side in the result; strides of `to` count those
    tiled      // one item: a tile of `rows` × `columns`, through shared memory
  };
  Kind kind = Kind::elements;
  int bytes = 1, rank = 0;
  std::uint32_t items = 0;
  Divisor extents[kCopyRank];  // innermost first
  std::int64_t from[kCopyRank] = {}, to[kCopyRank] = {};
  std::int64_t from_offset = 0, to_offset = 0;
  std::int64_t step = 0;
  // tiled: rows lie side by side in the source, columns in the result. `extents` are those of the tiles, then of the other dimensions.
  std::int64_t rows = 0, columns = 0, row_to = 0, column_from = 0;
  bool vector_loads = false, vector_stores = false;  // of tile_vector(bytes) elements
};

// A tile's side and the elements that a thread moves at once, by the bytes of an element.
__host__ __device__ constexpr int tile_side(int bytes) { return bytes == 8 ? 32 : 64; }
__host__ __device__ constexpr int tile_vector(int bytes) { return bytes == 8 ? 2 : 4; }

// Addresses are multiples of 16 where the part moves more than elements of the tensor. Grid and kernels for one part.
void launch_copy(const CopyPart& part, const void* from, void* to, const Start& start);

// to[to_offset + Σ index·to] = from[from_offset + Σ index·from]. No element is written twice; the memories do not overlap.
class StridedCopy {
 public:
  // `axes` outermost first, at most kCopyRank; elements of 1, 2, 4 or 8 bytes.
  StridedCopy(int element_bytes, std::vector<CopyAxis> axes, std::int64_t from_offset = 0, std::int64_t to_offset = 0);
  // To a dense result.
  StridedCopy(int element_bytes, const Shape& shape, const Shape& strides, std::int64_t offset = 0);

  void launch(const void* from, void* to, const Start& start) const;

 private:
  Plans<std::vector<CopyPart>> parts_;
};

}  // namespace tandem::cuda
