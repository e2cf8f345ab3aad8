// FlashAttention's scheme on tensor cores, for f16 and bf16: a block of 4 warps takes 64 or 128 lines and walks over blocks of 64 or 32
// keys, of which the next is copied while one is worked on. A warp has 16 or 32 lines, whose scores, weights and sums never leave its
// registers. Weights are powers of 2 of scores times one factor, so that one costs a multiply-add and an ex2.
#include "device/cuda/dependent.cuh"
#include "ops/attention/lines_cuda.cuh"
#include "ops/rows_cuda.cuh"
#include "ops/tensor_cores_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kStaticBytes = 16;  // of shared memory, beside Form::kBytes

// kSize: what rows of q, k and v are padded to; kTiles: of 16 lines each that a warp has; kMasked: whether scores pass a mask, a cap or a
// factor that is not positive.
template <typename T_, int kSize_, int kTiles_, bool kMasked_>
struct Form {
  using T = T_;
  static constexpr int kSize = kSize_, kTiles = kTiles_;
  static constexpr bool kMasked = kMasked_;
  static constexpr int kLines = 16 * kTiles * kWarps;
  static constexpr int kCopied = kSize > 128 ? 32 : 64;                       // keys copied at a time
  static constexpr int kKeys = kSize > 128 || kSize* kTiles > 128 ? 32 : 64;  // keys scored at a time: what registers hold
  static constexpr int kStep = kSize + 8;  // between rows in shared memory: an odd number of 16 bytes, so that 8 lie in different banks
  static constexpr int kChunks = kSize / 8;
  static constexpr int kBytes = (kLines + 4 * kCopied) * kStep * static_cast<int>(sizeof(T));
};

// Rows first … first+kCopied of a matrix to shared memory in the background, zeros from `end` on and past `size`.
template <typename F, typename T = typename F::T>
__device__ __forceinline__ void copy_keys(const T* base, std::int64_t step, int first, int end, int size, T* to) {
  constexpr int kRows = kThreads / F::kChunks;  // that all threads copy at once; of 12 chunks, 8 threads stay idle
  const int d = static_cast<int>(threadIdx.x) % F::kChunks * 8, row = static_cast<int>(threadIdx.x) / F::kChunks;
  const T* from = base + (first + row) * step + d;
  unsigned at = shared_address(to + row * F::kStep + d);
  for (int i = row < kRows ? row : F::kCopied; i < F::kCopied; i += kRows) {
    const bool real = first + i < end && d < size;
    copy_beside(at, real ? from : base, real ? 16 : 0);
    from += kRows * step;
    at += kRows * F::kStep * static_cast<int>(sizeof(T));
  }
}

// The block's lines of q, in the background.
template <typename F, typename T = typename F::T>
__device__ __forceinline__ void copy_queries(const AttentionRun& p, int batch, int kv_head, int first, T* to) {
  const T* base = static_cast<const T*>(p.q);
  const int lines = lines_of(p), head = kv_head * (p.heads / p.kv_heads);
  for (int index = threadIdx.x; index < F::kLines * F::kChunks; index += kThreads) {
    const int i = index / F::kChunks, line = first + i, d = index % F::kChunks * 8;
    const bool real = line < lines && d < p.size;
    const Line at = {head + line / p.rows, line % p.rows, 0, false};
    copy_beside(shared_address(to + i * F::kStep + d), real ? base + offset_of(p.q_steps, batch, at) + d : base, real ? 16 : 0);
  }
}

// What a lane keeps of the lines of its warp: lines lane/4 and lane/4 + 8 of each tile, tile t's at [2t] and [2t+1].
template <typename F>
struct Rows {
  static constexpr int kCount = 2 * F::kTiles;
  int ends[kCount];
  std::int64_t mask_rows[kCount];
  float tops[kCount], totals[kCount];  // tops before the factor; totals of this lane's columns only
  float sums[F::kTiles][F::kSize / 8][4];
};

__device__ __forceinline__ float over_quad(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffff, value, 2));
}

// Scores of a warp's lines with a block of keys, as products.
template <typename F, typename T = typename F::T>
__device__ __forceinline__ void multiply_keys(const T* q, const T* k, float (&scores)[F::kTiles][F::kKeys / 8][4]) {
  const int lane = threadIdx.x % 32;
  const unsigned q_at = shared_address(q + lane % 16 * F::kStep + lane / 16 * 8);
  const unsigned k_at = shared_address(k + (lane / 16 * 8 + lane % 8) * F::kStep + lane / 8 % 2 * 8);
#pragma unroll
  for (int d = 0; d < F::kSize; d += 16) {
    unsigned a[F::kTiles][4];
#pragma unroll
    for (int t = 0; t < F::kTiles; ++t) load_matrices(a[t], q_at + (t * 16 * F::kStep + d) * 2);
#pragma unroll
    for (int n = 0; n < F::kKeys / 16; ++n) {
      unsigned b[4];
      load_matrices(b, k_at + (n * 16 * F::kStep + d) * 2);
#pragma unroll
      for (int t = 0; t < F::kTiles; ++t) {
        multiply_fragments<T>(scores[t][2 * n], a[t], b[0], b[1]);
        multiply_fragments<T>(scores[t][2 * n + 1], a[t], b[2], b[3]);
      }
    }
  }
}

// Products to weights exp(score − top), against the running tops; scales the sums so far where a top grew.
template <typename F>
__device__ __forceinline__ void weigh(const AttentionRun& p, float factor, int begin, bool whole,
                                      float (&scores)[F::kTiles][F::kKeys / 8][4], Rows<F>& rows) {
  const int column = begin + threadIdx.x % 4 * 2;
#pragma unroll
  for (int r = 0; r < Rows<F>::kCount; ++r) {
    float(&line)[F::kKeys / 8][4] = scores[r / 2];
    constexpr int kHalf = 2;  // a line's two numbers of a fragment
    const int at = r % 2 * kHalf;
    float top = rows.tops[r];
#pragma unroll
    for (int n = 0; n < F::kKeys / 8; ++n)
#pragma unroll
      for (int e = 0; e < kHalf; ++e) {
        float& score = line[n][at + e];
        if (F::kMasked) score = column + 8 * n + e < rows.ends[r] ? score_of(p, score, rows.mask_rows[r], column + 8 * n + e) : kLowest;
        else if (!whole && column + 8 * n + e >= rows.ends[r]) score = kLowest;
        top = fmaxf(top, score);  // NaN leaves the maximum alone
      }
    top = over_quad(top);
    const bool nothing = top == kLowest;
    const float shift = nothing ? 0.0f : F::kMasked ? top : top * factor;
    // What a mask made of scores may lie near the end of the floats: no product there before the difference.
    const auto weight = [&](float score) { return quick_exp2(F::kMasked ? (score - shift) * factor : score * factor - shift); };
    const float kept = nothing ? 1.0f : weight(rows.tops[r]);
    rows.tops[r] = top;
    float total = 0;
#pragma unroll
    for (int n = 0; n < F::kKeys / 8; ++n)
#pragma unroll
      for (int e = 0; e < kHalf; ++e) {
        line[n][at + e] = weight(line[n][at + e]);
        total += line[n][at + e];
      }
    rows.totals[r] = rows.totals[r] * kept + total;
    if (__any_sync(0xffffffff, kept != 1.0f)) {
#pragma unroll
      for (int n = 0; n < F::kSize / 8; ++n)
#pragma unroll
        for (int e = 0; e < kHalf; ++e) rows.sums[r / 2][n][at + e] *= kept;
    }
  }
}

// sums += weights · v.
template <typename F, typename T = typename F::T>
__device__ __forceinline__ void add_values(const float (&weights)[F::kTiles][F::kKeys / 8][4], const T* v, Rows<F>& rows) {
  const int lane = threadIdx.x % 32;
  const unsigned v_at = shared_address(v + lane % 16 * F::kStep + lane / 16 * 8);
#pragma unroll
  for (int k = 0; k < F::kKeys / 16; ++k) {
    unsigned a[F::kTiles][4];
#pragma unroll
    for (int t = 0; t < F::kTiles; ++t) {
      const float(&first)[4] = weights[t][2 * k], (&second)[4] = weights[t][2 * k + 1];
      a[t][0] = pack<T>(first[0], first[1]);
      a[t][1] = pack<T>(first[2], first[3]);
      a[t][2] = pack<T>(second[0], second[1]);
      a[t][3] = pack<T>(second[2], second[3]);
    }
#pragma unroll
    for (int n = 0; n < F::kSize / 16; ++n) {
      unsigned b[4];
      load_transposed(b, v_at + (k * 16 * F::kStep + n * 16) * 2);
#pragma unroll
      for (int t = 0; t < F::kTiles; ++t) {
        multiply_fragments<T>(rows.sums[t][2 * n], a[t], b[0], b[1]);
        multiply_fragments<T>(rows.sums[t][2 * n + 1], a[t], b[2], b[3]);
      }
    }
  }
}

// A warp's results, through its own part of the memory of q, from where they go out in whole vectors.
template <typename F, typename T = typename F::T>
__device__ __forceinline__ void store_lines(const AttentionRun& p, int batch, int kv_head, int first, float top_factor, Rows<F>& rows,
                                            T* stage) {
  const int lane = threadIdx.x % 32;
  unsigned bad[Rows<F>::kCount];
#pragma unroll
  for (int r = 0; r < Rows<F>::kCount; ++r) {
    float total = rows.totals[r];
    total += __shfl_xor_sync(0xffffffff, total, 1);
    total += __shfl_xor_sync(0xffffffff, total, 2);
    const int index = r * 8 + lane / 4;
    const bool empty = rows.tops[r] == kLowest && total == 0;
    const float nothing = p.empty_is_nan && line_of(p, batch, kv_head, first + index).counts ? __int_as_float(0x7fffffff) : 0.0f;
    const float by = 1.0f / total;
    const bool real = first + index < lines_of(p);
    float* const sums = p.sums && real ? p.sums + dense_line(p, batch, kv_head, first + index) * p.value_size : nullptr;
    if (lane % 4 == 0 && real) store_total(p, batch, kv_head, first + index, rows.tops[r] * top_factor, total);
    bool finite = true;
#pragma unroll
    for (int n = 0; n < F::kSize / 8; ++n) {
      const float x = rows.sums[r / 2][n][r % 2 * 2] * by, y = rows.sums[r / 2][n][r % 2 * 2 + 1] * by;
      finite = finite && isfinite(x) && isfinite(y);
      if (sums && 8 * n < p.value_size)
        *reinterpret_cast<float2*>(sums + 8 * n + lane % 4 * 2) = empty ? make_float2(nothing, nothing) : make_float2(x, y);
      *reinterpret_cast<unsigned*>(stage + index * F::kStep + 8 * n + lane % 4 * 2) = empty ? pack<T>(nothing, nothing) : pack<T>(x, y);
    }
    bad[r] = __ballot_sync(0xffffffff, !finite && !empty && real);
  }
  __syncwarp();
  for (int index = lane; !p.sums && index < 16 * F::kTiles * F::kChunks; index += 32) {
    const int i = index / F::kChunks, line = first + i, d = index % F::kChunks * 8;
    if (line >= lines_of(p) || d >= p.value_size) continue;
    const Line at = {kv_head * (p.heads / p.kv_heads) + line / p.rows, line % p.rows, 0, false};
    T* out = static_cast<T*>(p.out) + offset_of(p.out_steps, batch, at);
    *reinterpret_cast<uint4*>(out + d) = *reinterpret_cast<const uint4*>(stage + i * F::kStep + d);
  }
  __syncwarp();
#pragma unroll
  for (int r = 0; r < Rows<F>::kCount; ++r)
    for (unsigned left = bad[r]; left != 0;) {
      const int quad = (__ffs(static_cast<int>(left)) - 1) / 4;
      careful_line<T>(p, batch, kv_head, first + r * 8 + quad, __shfl_sync(0xffffffff, rows.tops[r], 4 * quad) * top_factor);
      left &= ~(0xfu << (4 * quad));
    }
}

template <typename F>
__global__ void __launch_bounds__(kThreads, 2) attend(const __grid_constant__ AttentionRun p, int tiles) {
  using T = typename F::T;
  extern __shared__ uint4 memory[];
  __shared__ int block_end;
  T *q = reinterpret_cast<T*>(memory), *keys = q + F::kLines * F::kStep, *values = keys + 2 * F::kCopied * F::kStep;
  const int group = blockIdx.x / tiles, batch = group / p.kv_heads, kv_head = group % p.kv_heads;
  const int first = (tiles - 1 - static_cast<int>(blockIdx.x) % tiles) * F::kLines;  // the longest of a causal problem go first
  const T* k_base = static_cast<const T*>(p.k) + batch * p.k_steps.batch + kv_head * p.k_steps.head;
  const T* v_base = static_cast<const T*>(p.v) + batch * p.v_steps.batch + kv_head * p.v_steps.head;
  const int lane = threadIdx.x % 32, warp_first = static_cast<int>(threadIdx.x) / 32 * 16 * F::kTiles;

  copy_queries<F>(p, batch, kv_head, first, q);
  if (threadIdx.x == 0) block_end = 0;
  __syncthreads();
  Rows<F> rows;
  int warp_end = 0, whole_end = p.columns;  // before which some, and all, lines of the warp attend to columns
#pragma unroll
  for (int r = 0; r < Rows<F>::kCount; ++r) {
    const Line line = line_of(p, batch, kv_head, first + warp_first + r * 8 + lane / 4);
    rows.ends[r] = line.end;
    rows.mask_rows[r] = offset_of(p.mask_steps, batch, line);
    rows.tops[r] = kLowest;
    rows.totals[r] = 0;
    warp_end = max(warp_end, line.end);
    whole_end = min(whole_end, line.end);
#pragma unroll
    for (int n = 0; n < F::kSize / 8; ++n) rows.sums[r / 2][n][r % 2 * 2] = rows.sums[r / 2][n][r % 2 * 2 + 1] = 0;
  }
  warp_end = __reduce_max_sync(0xffffffff, warp_end);
  whole_end = __reduce_min_sync(0xffffffff, whole_end);
  if (lane == 0) atomicMax(&block_end, warp_end);
  __syncthreads();

  const float factor = F::kMasked ? kLog2E : p.scale * kLog2E;
  const int end = block_end;
  const auto copy = [&](int begin, int stage) {
    copy_keys<F>(k_base, p.k_steps.row, begin, end, p.size, keys + stage * F::kCopied * F::kStep);
    copy_keys<F>(v_base, p.v_steps.row, begin, end, p.value_size, values + stage * F::kCopied * F::kStep);
  };
  if (end > 0) copy(0, 0);
  int stage = 0;
  for (int copied = 0; copied < end; copied += F::kCopied, stage ^= 1) {
    wait_for_copies();
    __syncthreads();
    if (copied + F::kCopied < end) copy(copied + F::kCopied, stage ^ 1);
#pragma unroll 1
    for (int begin = copied; begin < min(copied + F::kCopied, warp_end); begin += F::kKeys) {
      const int row = stage * F::kCopied + begin - copied;
      float scores[F::kTiles][F::kKeys / 8][4] = {};
      multiply_keys<F>(q + warp_first * F::kStep, keys + row * F::kStep, scores);
      weigh<F>(p, factor, begin, begin + F::kKeys <= whole_end, scores, rows);
      add_values<F>(scores, values + row * F::kStep, rows);
    }
  }
  wait_for_copies();
  __syncthreads();
  store_lines<F>(p, batch, kv_head, first + warp_first, F::kMasked ? 1.0f : p.scale, rows, q + warp_first * F::kStep);
}

int tiles_of(const AttentionRun& p, int lines) { return (lines_of(p) + lines - 1) / lines; }

bool passes_mask(const AttentionRun& p) { return p.masked || p.softcap > 0 || !(p.scale > 0); }

// Calls `work(Form)` with the form for a run: 128 lines to a block where that keeps the device busy. False if the device has too little
// shared memory for it.
template <typename Work>
bool with_form(const AttentionRun& p, const DeviceLimits& device, const Work& work) {
  bool fits = false;
  const auto try_form = [&](auto form) {
    fits = decltype(form)::kBytes + kStaticBytes <= device.shared_bytes;
    if (fits) work(form);
    return fits;
  };
  const bool tall = lines_of(p) > 64 && std::int64_t{tiles_of(p, 128)} * p.batch * p.kv_heads >= device.multiprocessors;
  const auto with_size = [&](auto tag, auto size) {
    using T = typename decltype(tag)::type;
    constexpr int kTall = size() > 128 ? 1 : 2;  // no more fits into registers
    if (passes_mask(p)) try_form(Form<T, size(), 1, true>());
    else if (!tall || !try_form(Form<T, size(), kTall, false>())) try_form(Form<T, size(), 1, false>());
  };
  const auto with_type = [&](auto tag) {
    const int size = std::max(p.size, p.value_size);
    if (size <= 32) with_size(tag, std::integral_constant<int, 32>());
    else if (size <= 64) with_size(tag, std::integral_constant<int, 64>());
    else if (size <= 96) with_size(tag, std::integral_constant<int, 96>());
    else if (size <= 128) with_size(tag, std::integral_constant<int, 128>());
    else with_size(tag, std::integral_constant<int, 256>());
  };
  if (p.type == DType::f16) with_type(Tag<__half>());
  else with_type(Tag<__nv_bfloat16>());
  return fits;
}

}  // namespace

bool takes_tensor_attention(const AttentionRun& p, const DeviceLimits& device) {
  if (p.type != DType::f16 && p.type != DType::bf16) return false;
  for (const int size : {p.size, p.value_size})
    if (size == 0 || size % 8 != 0 || size > kMostAttentionSize) return false;
  for (const AttentionSteps& steps : {p.q_steps, p.k_steps, p.v_steps, p.out_steps})
    if (steps.batch % 8 != 0 || steps.head % 8 != 0 || steps.row % 8 != 0) return false;
  return with_form(p, device, [](auto) {});
}

cudaError_t prepare_tensor_attention(const AttentionRun& p, const DeviceLimits& device) {
  cudaError_t status = cudaSuccess;
  with_form(p, device, [&](auto form) {
    using F = decltype(form);
    status = cudaFuncSetAttribute(attend<F>, cudaFuncAttributeMaxDynamicSharedMemorySize, F::kBytes);
  });
  return status;
}

void launch_tensor_attention(const AttentionRun& p, const DeviceLimits& device, cudaStream_t stream) {
  with_form(p, device, [&](auto form) {
    using F = decltype(form);
    const int tiles = tiles_of(p, F::kLines);
    start_kernel(stream, attend<F>, grid_for(std::int64_t{tiles} * p.batch * p.kv_heads, 1), kThreads, F::kBytes, p, tiles);
  });
}

}  // namespace tandem::cuda
