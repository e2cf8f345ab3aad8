#include "ops/matmul/packed_tiles_cuda.h"

#include "core/check.h"
#include "core/numeric.h"
#include "device/cuda/runtime.h"
#include "ops/matmul/problem_cpu.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

constexpr int kFirstWithClusters = 90;
constexpr std::int64_t kAlignment = 16;  // of what the kernels read at once
constexpr std::int64_t kElement = 2;     // bytes of a's

}  // namespace

std::size_t tile_bytes(const TileFormat& format, std::int64_t k, std::int64_t n) {
  return static_cast<std::size_t>(ceil_divide(n, cuda::kTileColumns) * format.chunks(k) * format.chunk_bytes());
}

PackedTiles::PackedTiles(const std::byte* b, const TileFormat& format, std::int64_t k, std::int64_t n, std::size_t scale_bytes)
    : PackedBlock(tile_bytes(format, k, n) + scale_bytes), tile_bytes_(tile_bytes(format, k, n)) {
  const auto words = static_cast<int>(format.chunks(k) * format.chunk_bytes() / 512);
  cuda::launch_pack_tiles(b, data(), format.bits, k, n, words, format.flip, cudaStreamPerThread);
  cuda::check_launch("storing a weight in tiles");
  cuda::finish(cudaStreamPerThread, "storing a weight in tiles");
}

PackedProduct::PackedProduct(const Device& device, const TileFormat& format, std::span<const int> tiles, const Shape& shape)
    : shape_(shape), chunks_(format.chunks(shape.k)), pitch_(round_up(shape.k, kAlignment / kElement)) {
  const auto& gpu = static_cast<const cuda::CudaDevice&>(device);
  cut_ = cuda::packed_cut({shape.n, chunks_, format.chunk_bytes(), shape.m * format.chunk * kElement}, tiles, gpu.multiprocessors(),
                          gpu.sm() >= kFirstWithClusters);
}

std::size_t PackedProduct::workspace_bytes() const { return static_cast<std::size_t>(shape_.m * pitch_ * kElement); }

cuda::PackedRows PackedProduct::rows(const RunArgs& args, const PackedTiles& b) const {
  const std::byte* x = args.operands[kMatMulA];
  const auto k = static_cast<int>(shape_.k), m = static_cast<int>(shape_.m), pitch = static_cast<int>(pitch_);
  if (pitch_ != shape_.k || reinterpret_cast<std::uintptr_t>(x) % kAlignment != 0) {
    cuda::launch_align_rows(x, args.workspace, m, k, pitch, cuda::start_of(args));
    x = args.workspace;
  }
  return {.x = x,
          .words = b.in(args),
          .bias = shape_.bias ? args.operands[kMatMulBias] : nullptr,
          .residual = shape_.residual ? args.operands[kMatMulResidual] : nullptr,
          .y = args.results[0],
          .m = m,
          .n = static_cast<int>(shape_.n),
          .depth = pitch,
          .pitch = pitch,
          .chunks = static_cast<int>(chunks_),
          .activation = shape_.activation,
          .cluster = cut_.cluster,
          .resident = args.may_start_early && (args.resident >> kMatMulB & 1) != 0};
}

std::optional<std::int64_t> known_rows(const Type& a) {
  std::int64_t rows = 1;
  if (a.dims.size() < 2) return std::nullopt;
  for (std::size_t i = 0; i + 1 < a.dims.size(); ++i) {
    if (!a.dims[i].is_constant()) return std::nullopt;
    rows = checked_multiply(rows, a.dims[i].constant());
  }
  return rows;
}

}  // namespace tandem::kernels
