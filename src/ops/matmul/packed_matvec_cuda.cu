// One row times a matrix that is stored by columns, at the speed of memory. A column is shared by several warps, so that all loads of a warp
// go out at once; they go out before the kernel waits for the one before it, so that reading goes on from kernel to kernel.
#include "ops/matmul/finish_cuda.cuh"
#include "ops/matmul/packed_matvec_cuda.h"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kTile = 64;

__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// 16 bytes that are read once.
template <typename T>
__device__ __forceinline__ Vector<T, 8> stream_load(const Vector<T, 8>* from) {
  uint4 word;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(word.x), "=r"(word.y), "=r"(word.z), "=r"(word.w) : "l"(from));
  Vector<T, 8> vector;
  memcpy(&vector, &word, sizeof vector);
  return vector;
}

// x may begin anywhere.
template <typename T>
__device__ __forceinline__ Vector<T, 8> load_row(const T* x, int vector) {
  if (reinterpret_cast<std::uintptr_t>(x) % 16 == 0) return reinterpret_cast<const Vector<T, 8>*>(x)[vector];
  Vector<T, 8> result;
#pragma unroll
  for (int i = 0; i < 8; ++i) result.at[i] = x[8 * vector + i];
  return result;
}

template <typename T>
__device__ __forceinline__ float product(const Vector<T, 8>& a, const Vector<T, 8>& b, float sum) {
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += to_float(a.at[i]) * to_float(b.at[i]);
  return sum;
}

// `split` warps share each column, of which a warp has kColumns; kLoads of 16 bytes of each are under way in every lane.
template <typename T, int kLoads, int kColumns, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) packed_matvec(const __grid_constant__ PackedMatVec p, int split) {
  using V = Vector<T, 8>;
  let_next_begin();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, part = warp % split;
  const int column = (static_cast<int>(blockIdx.x) * (kWarps / split) + warp / split) * kColumns, vectors = p.k / 8;
  const T* x = static_cast<const T*>(p.x);
  float sums[kColumns] = {};
  bool waited = false;
  for (int first = part * 32 * kLoads; first < vectors; first += split * 32 * kLoads) {
    V b[kColumns][kLoads];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const V* from = static_cast<const V*>(p.packed) + std::int64_t{min(column + c, p.n - 1)} * vectors + first + lane;
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        b[c][i] = V{};
        if (first + lane + 32 * i < vectors) b[c][i] = stream_load(from + 32 * i);
      }
    }
    if (!waited) wait_for_previous();
    waited = true;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      V a{};
      if (first + lane + 32 * i < vectors) a = load_row(x, first + lane + 32 * i);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) sums[c] = product(a, b[c][i], sums[c]);
    }
  }
  if (!waited) wait_for_previous();

  __shared__ float shared[kWarps][kColumns];
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    for (int distance = 16; distance > 0; distance /= 2) sums[c] += __shfl_xor_sync(0xffffffff, sums[c], distance);
    if (lane == 0) shared[warp][c] = sums[c];
  }
  __syncthreads();
  const int at = column + lane;
  if (part != 0 || lane >= kColumns || at >= p.n) return;
  float sum = 0;
  for (int w = 0; w < split; ++w) sum += shared[warp + w][lane];
  if (p.bias) sum += to_float(static_cast<const T*>(p.bias)[at]);
  sum = activate(p.activation, sum);
  if (p.residual) sum += to_float(static_cast<const T*>(p.residual)[at]);
  static_cast<T*>(p.y)[at] = from_float<T>(sum);
}

__global__ void __launch_bounds__(kThreads) pack_columns(const std::uint16_t* b, std::uint16_t* packed, std::int64_t k, std::int64_t n, std::int64_t row_tiles) {
  __shared__ std::uint16_t tile[kTile][kTile + 2];
  const std::int64_t row0 = blockIdx.x % row_tiles * kTile, column0 = blockIdx.x / row_tiles * kTile;
  const int x = threadIdx.x % kTile;
  for (int y = threadIdx.x / kTile; y < kTile; y += kThreads / kTile)
    if (row0 + y < k && column0 + x < n) tile[y][x] = b[(row0 + y) * n + column0 + x];
  __syncthreads();
  for (int y = threadIdx.x / kTile; y < kTile; y += kThreads / kTile)
    if (row0 + x < k && column0 + y < n) packed[(column0 + y) * k + row0 + x] = tile[x][y];
}

template <typename T, int kLoads, int kColumns, int kBlocks>
void launch(const PackedMatVec& p, int split, bool early, cudaStream_t stream) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t configuration{};
  configuration.gridDim = grid_for(p.n, kWarps / split * kColumns);
  configuration.blockDim = kThreads;
  configuration.stream = stream;
  configuration.attrs = &attribute;
  configuration.numAttrs = early ? 1 : 0;
  cudaLaunchKernelEx(&configuration, packed_matvec<T, kLoads, kColumns, kBlocks>, p, split);
}

}  // namespace

// A warp's part of a column is one to four loads where eight warps share it at most; more columns where there are enough for all of the GPU.
void launch_packed_matvec(DType dtype, const PackedMatVec& p, bool early, cudaStream_t stream) {
  const int vectors = p.k / 8;
  const bool many = p.n > 4096;
  const auto with_type = [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (vectors <= 4 * 32) launch<T, 4, 2, 3>(p, 1, early, stream);
    else if (vectors <= 2 * 4 * 32) launch<T, 4, 2, 3>(p, 2, early, stream);
    else if (many && vectors <= 4 * 4 * 32) launch<T, 4, 2, 3>(p, 4, early, stream);
    else if (vectors <= 4 * 4 * 32) launch<T, 2, 2, 4>(p, 8, early, stream);
    else launch<T, 4, 2, 3>(p, 8, early, stream);
  };
  if (dtype == DType::f16) with_type(Tag<__half>());
  else with_type(Tag<__nv_bfloat16>());
}

void launch_pack_columns(const void* b, void* packed, std::int64_t k, std::int64_t n, cudaStream_t stream) {
  const std::int64_t row_tiles = (k + kTile - 1) / kTile, column_tiles = (n + kTile - 1) / kTile;
  pack_columns<<<grid_for(row_tiles * column_tiles, 1), kThreads, 0, stream>>>(static_cast<const std::uint16_t*>(b), static_cast<std::uint16_t*>(packed), k, n,
                                                                               row_tiles);
}

}  // namespace tandem::cuda
