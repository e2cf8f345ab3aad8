// Products of up to 16 rows with a matrix kept in tiles: what MatMul and DequantMatMul share beside launches. Operands 0 … 3 of both are a,
// b, bias and residual.
#pragma once

#include "ops/kernel.h"
#include "ops/matmul/packed_rows_cuda.h"
#include "ops/packed_cuda.h"

namespace tandem::kernels {

// What b is of: floats of 16 bits, or codes of 8 or 4.
struct TileFormat {
  int bits = 16;
  int chunk = 64;     // rows of b
  unsigned flip = 0;  // bits of each code that change when it is stored

  std::int64_t chunks(std::int64_t k) const { return (k + chunk - 1) / chunk; }
  std::int64_t chunk_bytes() const { return std::int64_t{cuda::kTileColumns} * chunk * bits / 8; }  // of a tile
};

std::size_t tile_bytes(const TileFormat& format, std::int64_t k, std::int64_t n);

// b [k,n] in tiles, on the thread's current GPU.
class PackedTiles final : public PackedBlock {
 public:
  // With room for so many bytes of scales, which the caller fills. Waits until b is read.
  PackedTiles(const std::byte* b, const TileFormat& format, std::int64_t k, std::int64_t n, std::size_t scale_bytes = 0);

  float* scales() { return reinterpret_cast<float*>(data() + tile_bytes_); }
  // Where a run finds them.
  const float* scales_in(const RunArgs& args) const { return reinterpret_cast<const float*>(in(args) + tile_bytes_); }

 private:
  std::size_t tile_bytes_;
};

// One product, bound to shapes.
class PackedProduct {
 public:
  struct Shape {
    std::int64_t m, k, n;
    Activation activation;
    bool bias, residual;
  };
  PackedProduct(const Device& device, const TileFormat& format, std::span<const int> tiles, const Shape& shape);

  int tiles() const { return cut_.tiles; }
  std::size_t workspace_bytes() const;
  // What is to be launched, in the order of args.stream, which may be given what brings a into a form that 16 bytes are read of.
  cuda::PackedRows rows(const RunArgs& args, const PackedTiles& b) const;

 private:
  Shape shape_;
  std::int64_t chunks_, pitch_;
  cuda::PackedCut cut_;
};

// The number of rows of a, whose other dimensions are all in the last one; nothing where that is not known.
std::optional<std::int64_t> known_rows(const Type& a);

}  // namespace tandem::kernels
