#include "ops/matmul/finish_cuda.cuh"
#include "ops/quantize/codes_cuda.cuh"
#include "ops/quantize/quant_matmul_cuda.h"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256, kTile = 32, kLines = 8;

// A block of kTile × kLines threads turns a tile; the padding keeps its columns in different banks.
__global__ void __launch_bounds__(kTile* kLines)
    transpose_codes(const std::uint8_t* from, std::uint8_t* to, std::int64_t rows, std::int64_t columns) {
  __shared__ std::uint8_t tile[kTile][kTile + 4];
  const std::int64_t column_tiles = (columns + kTile - 1) / kTile;
  const std::int64_t row = std::int64_t{blockIdx.x} / column_tiles * kTile, column = std::int64_t{blockIdx.x} % column_tiles * kTile;
  const int x = threadIdx.x;
  for (int y = threadIdx.y; y < kTile; y += kLines)
    if (row + y < rows && column + x < columns) tile[y][x] = from[(row + y) * columns + column + x];
  __syncthreads();
  for (int y = threadIdx.y; y < kTile; y += kLines)
    if (column + y < columns && row + x < rows) to[(column + y) * rows + row + x] = tile[x][y];
}

// kVector elements a thread, of one row.
template <typename S, typename T, int kVector>
__global__ void __launch_bounds__(kThreads) finish_codes(const __grid_constant__ CodeSums f) {
  using V = Vector<T, kVector>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x, first = i * kVector;
  if (first >= f.count) return;
  const std::int64_t column =
      f.count <= 0xffffffff ? static_cast<std::uint32_t>(first) % static_cast<std::uint32_t>(f.columns) : first % f.columns;
  const auto sums = static_cast<const Vector<S, kVector>*>(f.sums)[i];
  V bias, residual, y;
  if (f.bias) bias = static_cast<const V*>(f.bias)[column / kVector];
  if (f.residual) residual = static_cast<const V*>(f.residual)[i];
  const float scale_a = float_at(f.scale_a_type, f.scale_a, 0);
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    float v = static_cast<float>(sums.at[j]) * scale_a * float_at(f.scale_type, f.scale, (column + j) * f.scale_step);
    if (f.bias) v += to_float(bias.at[j]);
    v = activate_for<T>(f.activation, v);
    if (f.residual) v += to_float(residual.at[j]);
    y.at[j] = from_float<T>(v);
  }
  static_cast<V*>(f.y)[i] = y;
}

template <typename S, typename T>
void launch_finish_of(const CodeSums& f, cudaStream_t stream) {
  constexpr int kWide = 8;
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % alignof(Vector<T, kWide>) == 0; };
  if (aligned(f.bias) && aligned(f.residual) && aligned(f.y))
    finish_codes<S, T, kWide><<<grid_for(f.count / kWide, kThreads), kThreads, 0, stream>>>(f);
  else finish_codes<S, T, 1><<<grid_for(f.count, kThreads), kThreads, 0, stream>>>(f);
}

}  // namespace

void launch_transpose_codes(const void* from, void* to, std::int64_t rows, std::int64_t columns, cudaStream_t stream) {
  if (rows == 0 || columns == 0) return;
  const unsigned tiles = grid_for((rows + kTile - 1) / kTile * ((columns + kTile - 1) / kTile), 1);
  const auto* codes = static_cast<const std::uint8_t*>(from);
  transpose_codes<<<tiles, dim3(kTile, kLines), 0, stream>>>(codes, static_cast<std::uint8_t*>(to), rows, columns);
}

void launch_finish_codes(const CodeSums& f, cudaStream_t stream) {
  if (f.count == 0) return;
  with_float_type(f.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (f.sums_type == DType::i32) launch_finish_of<std::int32_t, T>(f, stream);
    else launch_finish_of<float, T>(f, stream);
  });
}

}  // namespace tandem::cuda
