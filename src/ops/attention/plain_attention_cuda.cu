// FlashAttention's scheme in f32: a block takes 32 lines and walks over its part of the keys, 32 at a time, with a running maximum per
// line. Of its 128 threads, 8 neighbours share a line's scores and sums, and each has two lines.
#include "device/cuda/dependent.cuh"
#include "device/cuda/registers.cuh"
#include "ops/attention/lines_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kTileLines = 32, kTileKeys = 32;
constexpr int kOwn = kTileLines / 16;    // lines of a thread, 16 apart
constexpr int kOwnKeys = kTileKeys / 8;  // scores of a thread and line, 8 keys apart
constexpr int kWeightStep = kTileKeys + 4;
// That a multiprocessor has at once.
template <int kChunks>
constexpr int kBlocks = kChunks < 8 ? 4 : (kNeedsRegisters ? 2 : 3);

// Floats from row to row in shared memory: whole vectors, an odd number of them, so that 8 rows lie in different banks.
inline __host__ __device__ int padded_row(int size) { return (size + 3) / 4 * 4 + ((size + 3) / 4 % 2 == 0 ? 4 : 0); }

template <int kChunks>
struct Tiles {
  static constexpr int kValueStep = 32 * kChunks;
  static __host__ __device__ int key_floats(int size) { return kTileKeys * max(padded_row(size), kValueStep); }
  static int bytes(int size) {
    return static_cast<int>(sizeof(float)) * (kTileLines * padded_row(size) + key_floats(size) + kTileLines * kWeightStep);
  }
};

// A row of `size` elements as f32, zeros up to `width`; all zeros where `from` is null.
template <typename T>
__device__ __forceinline__ void load_row(const T* from, int size, float* to, int width) {
  for (int d = threadIdx.x % 32; d < width; d += 32) to[d] = from && d < size ? to_float(from[d]) : 0.0f;
}

// Rows first … first+kTileKeys of a matrix in the same way, zeros from `count` rows on; a warp has all its loads of 32 columns in flight.
template <typename T>
__device__ __forceinline__ void load_keys(const T* from, std::int64_t step, int count, int size, float* to, int to_step, int width) {
  constexpr int kRows = kTileKeys / kWarps;
  const int warp = threadIdx.x / 32;
  for (int d = threadIdx.x % 32; d < width; d += 32) {
    float values[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = warp + kWarps * i;
      values[i] = row < count && d < size ? to_float(from[row * step + d]) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) to[(warp + kWarps * i) * to_step + d] = values[i];
  }
}

__device__ __forceinline__ float4 vector_at(const float* at) { return *reinterpret_cast<const float4*>(at); }
__device__ __forceinline__ void multiply_add(float4& sum, float by, const float4& v) {
  sum.x += by * v.x;
  sum.y += by * v.y;
  sum.z += by * v.z;
  sum.w += by * v.w;
}

// Over the 8 threads that share a line.
template <typename Op>
__device__ __forceinline__ float over_line(float value, Op op) {
  for (int step = 4; step > 0; step /= 2) value = op(value, __shfl_xor_sync(0xffffffff, value, step));
  return value;
}

// What a thread keeps of its lines, threadIdx.x / 8 + 16·i of the block's.
template <int kChunks>
struct Rows {
  Line lines[kOwn];
  std::int64_t mask_rows[kOwn];
  float tops[kOwn], totals[kOwn];  // totals of this thread's columns only
  float4 sums[kOwn][kChunks];      // of values 4·(threadIdx.x % 8) + 32·chunk
};

__device__ __forceinline__ int own_line(int i) { return static_cast<int>(threadIdx.x) / 8 + 16 * i; }

// Products of the thread's lines with keys threadIdx.x % 8 + 8·j.
__device__ __forceinline__ void multiply_keys(const float* q, const float* keys, int step, int width, float (&scores)[kOwn][kOwnKeys]) {
  for (int d = 0; d < width; d += 4) {
    float4 a[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) a[i] = vector_at(q + own_line(i) * step + d);
#pragma unroll
    for (int j = 0; j < kOwnKeys; ++j) {
      const float4 b = vector_at(keys + (static_cast<int>(threadIdx.x) % 8 + 8 * j) * step + d);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) scores[i][j] += a[i].x * b.x + a[i].y * b.y + a[i].z * b.z + a[i].w * b.w;
    }
  }
}

// Products to weights exp(score − top) in shared memory, against the running tops; scales the sums so far.
template <int kChunks>
__device__ __forceinline__ void weigh(const AttentionRun& p, int begin, int end, float (&scores)[kOwn][kOwnKeys], Rows<kChunks>& rows,
                                      float* weights) {
  const int tx = threadIdx.x % 8;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    float top = rows.tops[i];
#pragma unroll
    for (int j = 0; j < kOwnKeys; ++j) {
      const int column = begin + tx + 8 * j;
      scores[i][j] = column < min(end, rows.lines[i].end) ? score_of(p, scores[i][j], rows.mask_rows[i], column) : kLowest;
      top = fmaxf(top, scores[i][j]);  // NaN leaves the maximum alone
    }
    top = over_line(top, [](float a, float b) { return fmaxf(a, b); });
    const bool nothing = top == kLowest;
    const float kept = nothing ? 1.0f : expf(rows.tops[i] - top);
    rows.tops[i] = top;
    rows.totals[i] *= kept;
#pragma unroll
    for (int j = 0; j < kOwnKeys; ++j) {
      const float weight = expf(scores[i][j] - (nothing ? 0.0f : top));
      rows.totals[i] += weight;
      weights[own_line(i) * kWeightStep + tx + 8 * j] = weight;
    }
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      float4& sum = rows.sums[i][c];
      sum = make_float4(sum.x * kept, sum.y * kept, sum.z * kept, sum.w * kept);
    }
  }
}

// sums += weights · values of the first `count` keys.
template <int kChunks>
__device__ __forceinline__ void add_values(const float* weights, const float* values, int count, Rows<kChunks>& rows) {
  const int first = threadIdx.x % 8 * 4;
#pragma unroll 4
  for (int j = 0; j < count; ++j) {
    float weight[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) weight[i] = weights[own_line(i) * kWeightStep + j];
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const float4 v = vector_at(values + j * Tiles<kChunks>::kValueStep + first + 32 * c);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) multiply_add(rows.sums[i][c], weight[i], v);
    }
  }
}

// Calls `work(d, sum)` for the thread's values of a line.
template <int kChunks, typename Work>
__device__ __forceinline__ void each_value(const AttentionRun& p, const float4 (&sums)[kChunks], const Work& work) {
  const int first = threadIdx.x % 8 * 4;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const float values[4] = {sums[c].x, sums[c].y, sums[c].z, sums[c].w};
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (first + 32 * c + e < p.value_size) work(first + 32 * c + e, values[e]);
  }
}

// The results of a line; false if one of this thread's is no finite number.
template <typename T, int kChunks>
__device__ __forceinline__ bool store_line(const AttentionRun& p, int batch, std::int64_t dense, const Rows<kChunks>& rows, int i,
                                           float total) {
  const bool empty = rows.tops[i] == kLowest && total == 0;
  const float nothing = p.empty_is_nan && rows.lines[i].counts ? __int_as_float(0x7fffffff) : 0.0f, factor = 1.0f / total;
  const std::int64_t offset = offset_of(p.out_steps, batch, rows.lines[i]);
  bool finite = true;
  each_value(p, rows.sums[i], [&](int d, float sum) {
    const float value = empty ? nothing : sum * factor;
    finite = finite && (empty || isfinite(value));
    store_value<T>(p, offset, dense, d, value);
  });
  return finite;
}

// A line's part of the results, for launch_merge_attention().
template <int kChunks>
__device__ __forceinline__ void store_part(const AttentionRun& p, const AttentionParts& parts, std::int64_t at, const Rows<kChunks>& rows,
                                           int i, float total) {
  if (threadIdx.x % 8 == 0) parts.lines[at] = make_float2(rows.tops[i], total);
  each_value(p, rows.sums[i], [&](int d, float sum) { parts.sums[at * p.value_size + d] = sum; });
}

// Results of all lines, or their parts; what is no finite number is looked at again.
template <typename T, int kChunks>
__device__ __forceinline__ void store_lines(const AttentionRun& p, const AttentionParts& parts, int group, int part, int first,
                                            const Rows<kChunks>& rows) {
  __shared__ float bad_tops[kTileLines];
  __shared__ bool bad[kTileLines];
  const int batch = group / p.kv_heads, kv_head = group % p.kv_heads;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const float total = over_line(rows.totals[i], [](float a, float b) { return a + b; });
    const int line = first + own_line(i);
    bool finite = true;
    if (line < lines_of(p)) {
      if (parts.count > 1) store_part(p, parts, part_index(p, parts, group, part, line), rows, i, total);
      else finite = store_line<T>(p, batch, dense_line(p, batch, kv_head, line), rows, i, total);
      if (parts.count == 1 && threadIdx.x % 8 == 0) store_total(p, batch, kv_head, line, rows.tops[i], total);
    }
    const float worst = over_line(finite ? 0.0f : 1.0f, [](float a, float b) { return fmaxf(a, b); });
    bad[own_line(i)] = worst != 0;
    bad_tops[own_line(i)] = rows.tops[i];
  }
  __syncthreads();
  for (int i = threadIdx.x / 32; i < kTileLines; i += kWarps)
    if (bad[i]) careful_line<T>(p, batch, kv_head, first + i, bad_tops[i]);
}

template <typename T, int kChunks>
__global__ void __launch_bounds__(kThreads, kBlocks<kChunks>)
    attend(const __grid_constant__ AttentionRun p, const AttentionParts parts, int tiles) {
  extern __shared__ float memory[];
  __shared__ int tile_end;
  const int q_step = padded_row(p.size), v_step = Tiles<kChunks>::kValueStep, width = (p.size + 3) / 4 * 4;
  float *q = memory, *keys = q + kTileLines * q_step, *weights = keys + Tiles<kChunks>::key_floats(p.size);
  const int part = blockIdx.x % parts.count, task = blockIdx.x / parts.count;
  const int group = task / tiles, batch = group / p.kv_heads, kv_head = group % p.kv_heads;
  const int first = (tiles - 1 - task % tiles) * kTileLines;  // the longest of a causal problem go first
  const T* k_base = static_cast<const T*>(p.k) + batch * p.k_steps.batch + kv_head * p.k_steps.head;
  const T* v_base = static_cast<const T*>(p.v) + batch * p.v_steps.batch + kv_head * p.v_steps.head;

  for (int i = threadIdx.x / 32; i < kTileLines; i += kWarps) {
    const T* from = static_cast<const T*>(p.q) + offset_of(p.q_steps, batch, line_of(p, batch, kv_head, first + i));
    load_row(first + i < lines_of(p) ? from : nullptr, p.size, q + i * q_step, width);
  }
  if (threadIdx.x == 0) tile_end = 0;
  __syncthreads();
  Rows<kChunks> rows = {};
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    rows.lines[i] = line_of(p, batch, kv_head, first + own_line(i));
    rows.mask_rows[i] = offset_of(p.mask_steps, batch, rows.lines[i]);
    rows.tops[i] = kLowest;
    atomicMax(&tile_end, rows.lines[i].end);
  }
  __syncthreads();

  const int steps = (tile_end + kTileKeys - 1) / kTileKeys, part_keys = (steps + parts.count - 1) / parts.count * kTileKeys;
  const int end = min(tile_end, (part + 1) * part_keys);
  for (int begin = part * part_keys; begin < end; begin += kTileKeys) {
    const int count = min(kTileKeys, end - begin);
    load_keys(k_base + begin * p.k_steps.row, p.k_steps.row, count, p.size, keys, q_step, width);
    __syncthreads();
    float scores[kOwn][kOwnKeys] = {};
    multiply_keys(q, keys, q_step, width, scores);
    __syncthreads();
    load_keys(v_base + begin * p.v_steps.row, p.v_steps.row, count, p.value_size, keys, v_step, v_step);
    weigh(p, begin, end, scores, rows, weights);
    __syncthreads();
    add_values(weights, keys, count, rows);
    __syncthreads();
  }
  store_lines<T>(p, parts, group, part, first, rows);
}

// Calls `work` with the smallest of 1, 2, 4 and 8 chunks of 32 values that hold a row.
template <typename Work>
void with_chunks(int value_size, const Work& work) {
  if (value_size <= 32) work(std::integral_constant<int, 1>());
  else if (value_size <= 64) work(std::integral_constant<int, 2>());
  else if (value_size <= 128) work(std::integral_constant<int, 4>());
  else work(std::integral_constant<int, 8>());
}

// Calls `work(kernel, bytes of shared memory)`, the bytes for rows of `size`.
template <typename Work>
void with_kernel(const AttentionRun& p, int size, const Work& work) {
  with_float_type(p.type, [&](auto tag) {
    with_chunks(p.value_size, [&](auto chunks) { work(attend<typename decltype(tag)::type, chunks()>, Tiles<chunks()>::bytes(size)); });
  });
}

}  // namespace

cudaError_t prepare_plain_attention(const AttentionRun& p) {
  cudaError_t status = cudaSuccess;
  with_kernel(p, kMostAttentionSize,
              [&](auto* kernel, int bytes) { status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes); });
  return status;
}

int plain_attention_parts(const AttentionRun& p, const DeviceLimits& device) {
  return attention_parts(p, kTileLines, 2 * kTileKeys, device);
}

void launch_plain_attention(const AttentionRun& p, const AttentionParts& parts, cudaStream_t stream) {
  const int tiles = (lines_of(p) + kTileLines - 1) / kTileLines;
  const unsigned blocks = grid_for(std::int64_t{tiles} * p.batch * p.kv_heads * parts.count, 1);
  with_kernel(p, p.size, [&](auto* kernel, int bytes) { start_kernel(stream, kernel, blocks, kThreads, bytes, p, parts, tiles); });
  if (parts.count > 1) launch_merge_attention(p, parts, stream);
}

}  // namespace tandem::cuda
