// Attention of few queries over many keys, for f16 and bf16: keys are split into parts, one block each, which are merged after.
// A warp has 16 lines and 16 keys at a time, which go from memory straight into the fragments of tensor cores:
// - scores sum over d in any order, so a lane's 16 bytes of a key, and the same 16 of a query, serve as its pairs of two steps over d;
// - columns of the result may have any order, so a lane's 16 bytes of a value serve as its column of eight fragments, zipped with the next
//   key's, and its results are 16 neighbours.
#include "device/cuda/dependent.cuh"
#include "ops/attention/lines_cuda.cuh"
#include "ops/rows_cuda.cuh"
#include "ops/tensor_cores_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kLines = 16, kKeys = 16;
constexpr float kLog2E = 1.4426950408889634f;

using Words = Vector<unsigned, 4>;

template <typename T_, int kSize_, bool kMasked_>
struct Form {
  using T = T_;
  static constexpr int kSize = kSize_;          // what rows of q, k and v are padded to: 64 or 128
  static constexpr bool kMasked = kMasked_;     // whether scores pass a mask, a cap or a factor that is not positive
  static constexpr int kKeyWords = kSize / 32;  // 16 bytes each, of a lane and key; a key is shared by 4 lanes
  static constexpr int kBlocks = kSize / 64;    // of 64 values; a value's block is shared by 8 lanes
};

template <typename T>
__device__ __forceinline__ Words words_at(const T* base, std::int64_t offset, bool real) {
  return real ? *reinterpret_cast<const Words*>(base + offset) : Words{};
}

// What a lane keeps of lines lane/4 and lane/4 + 8.
template <typename F>
struct Rows {
  int ends[2];
  std::int64_t mask_rows[2];
  float tops[2], totals[2];  // tops before the factor; totals of this lane's columns only
  Words q[2][F::kKeyWords];
  float sums[F::kBlocks][8][4];  // of values 64·block + 16·(lane % 4) + i: [block][i][0] and [2], 8 later: [1] and [3]
};

// 16 keys.
template <typename F, typename T = typename F::T>
__device__ __forceinline__ void attend_keys(const AttentionRun& p, float factor, const T* k_base, const T* v_base, int first, int end,
                                            Rows<F>& rows) {
  const int lane = threadIdx.x % 32, high = lane / 4, low = lane % 4;
  Words k[2][F::kKeyWords], v[4][F::kBlocks];
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int s = 0; s < F::kKeyWords; ++s) {
      const int key = first + 8 * n + high, d = 32 * s + 8 * low;
      k[n][s] = words_at(k_base, key * p.k_steps.row + d, key < end && d < p.size);
    }
#pragma unroll
  for (int j = 0; j < 4; ++j)
#pragma unroll
    for (int block = 0; block < F::kBlocks; ++block) {
      const int key = first + 2 * low + j % 2 + j / 2 * 8, d = 64 * block + 8 * high;
      v[j][block] = words_at(v_base, key * p.v_steps.row + d, key < end && d < p.value_size);
    }
  float scores[2][4] = {};
#pragma unroll
  for (int s = 0; s < F::kKeyWords; ++s)
#pragma unroll
    for (int step = 0; step < 4; step += 2) {
      const unsigned a[4] = {rows.q[0][s].at[step], rows.q[1][s].at[step], rows.q[0][s].at[step + 1], rows.q[1][s].at[step + 1]};
#pragma unroll
      for (int n = 0; n < 2; ++n) multiply_fragments<T>(scores[n], a, k[n][s].at[step], k[n][s].at[step + 1]);
    }
  bool grew = false;
  float kept[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float top = rows.tops[r];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& score = scores[i / 2][2 * r + i % 2];
      const int column = first + 8 * (i / 2) + 2 * low + i % 2;
      if (column >= min(end, rows.ends[r])) score = kLowest;
      else if (F::kMasked) score = score_of(p, score, rows.mask_rows[r], column);
      top = fmaxf(top, score);  // NaN leaves the maximum alone
    }
    top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 2));
    const bool nothing = top == kLowest;
    const float shift = nothing ? 0.0f : F::kMasked ? top : top * factor;
    // What a mask made of scores may lie near the end of the floats: no product there before the difference.
    const auto weight = [&](float score) { return quick_exp2(F::kMasked ? (score - shift) * factor : score * factor - shift); };
    kept[r] = nothing ? 1.0f : weight(rows.tops[r]);
    grew = grew || kept[r] != 1.0f;
    rows.tops[r] = top;
    rows.totals[r] *= kept[r];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& score = scores[i / 2][2 * r + i % 2];
      score = weight(score);
      rows.totals[r] += score;
    }
  }
  if (__any_sync(0xffffffff, grew)) {
#pragma unroll
    for (int block = 0; block < F::kBlocks; ++block)
#pragma unroll
      for (int i = 0; i < 32; ++i) rows.sums[block][i / 4][i % 4] *= kept[i % 4 / 2];
  }
  const unsigned a[4] = {pack<T>(scores[0][0], scores[0][1]), pack<T>(scores[0][2], scores[0][3]), pack<T>(scores[1][0], scores[1][1]),
                         pack<T>(scores[1][2], scores[1][3])};
#pragma unroll
  for (int block = 0; block < F::kBlocks; ++block)
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const auto pair = [&](int j) { return __byte_perm(v[j][block].at[i / 2], v[j + 1][block].at[i / 2], i % 2 == 0 ? 0x5410 : 0x7632); };
      multiply_fragments<T>(rows.sums[block][i], a, pair(0), pair(2));
    }
}

template <typename F>
__global__ void __launch_bounds__(kThreads, 2) attend_part(const __grid_constant__ AttentionRun p, const AttentionParts parts, int tiles) {
  begin_dependent();
  using T = typename F::T;
  __shared__ float warp_sums[kWarps][kLines][F::kSize];
  __shared__ float2 warp_lines[kWarps][kLines];
  const int part = blockIdx.x % parts.count, task = blockIdx.x / parts.count, tile = task % tiles;
  const int group = task / tiles, batch = group / p.kv_heads, kv_head = group % p.kv_heads;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, high = lane / 4, low = lane % 4, first = tile * kLines;
  const T* k_base = static_cast<const T*>(p.k) + batch * p.k_steps.batch + kv_head * p.k_steps.head;
  const T* v_base = static_cast<const T*>(p.v) + batch * p.v_steps.batch + kv_head * p.v_steps.head;
  const float factor = F::kMasked ? kLog2E : p.scale * kLog2E;

  Rows<F> rows = {};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int index = first + high + 8 * r;
    const Line line = line_of(p, batch, kv_head, index);
    rows.ends[r] = line.end;
    rows.mask_rows[r] = offset_of(p.mask_steps, batch, line);
    rows.tops[r] = kLowest;
    const std::int64_t at = offset_of(p.q_steps, batch, line) + 8 * low;
#pragma unroll
    for (int s = 0; s < F::kKeyWords; ++s)
      rows.q[r][s] = words_at(static_cast<const T*>(p.q), at + 32 * s, index < lines_of(p) && 32 * s + 8 * low < p.size);
  }
  // The parts share the keys that there really are, in steps of all warps.
  const int end = __reduce_max_sync(0xffffffff, max(rows.ends[0], rows.ends[1]));
  const int steps = (end + kWarps * kKeys - 1) / (kWarps * kKeys), per = (steps + parts.count - 1) / parts.count;
  const int part_begin = part * per * kWarps * kKeys, part_end = min(end, part_begin + per * kWarps * kKeys);
  for (int key = part_begin + warp * kKeys; key < part_end; key += kWarps * kKeys)
    attend_keys<F>(p, factor, k_base, v_base, key, part_end, rows);

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float total = rows.totals[r];
    total += __shfl_xor_sync(0xffffffff, total, 1);
    total += __shfl_xor_sync(0xffffffff, total, 2);
    const bool nothing = rows.tops[r] == kLowest;
    if (low == 0) warp_lines[warp][high + 8 * r] = make_float2(F::kMasked || nothing ? rows.tops[r] : rows.tops[r] * p.scale, total);
#pragma unroll
    for (int block = 0; block < F::kBlocks; ++block)
#pragma unroll
      for (int i = 0; i < 16; ++i) warp_sums[warp][high + 8 * r][64 * block + 16 * low + i] = rows.sums[block][i % 8][2 * r + i / 8];
  }
  __syncthreads();
  const int lines = min(kLines, lines_of(p) - first);
  for (int index = threadIdx.x; index < lines * F::kSize; index += kThreads) {
    const int line = index / F::kSize, d = index % F::kSize;
    float top = kLowest, total = 0, sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, warp_lines[w][line].x);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float weight = part_weight(warp_lines[w][line].x, top);
      total += warp_lines[w][line].y * weight;
      sum += warp_sums[w][line][d] * weight;
    }
    const std::int64_t at = part_index(p, parts, group, part, first + line);
    if (d == 0) parts.lines[at] = make_float2(top, total);
    if (d < p.value_size) parts.sums[at * p.value_size + d] = sum;
  }
}

}  // namespace

bool takes_decode_attention(const AttentionRun& p, const DeviceLimits& device) {
  if (!takes_tensor_attention(p, device) || std::max(p.size, p.value_size) > 128 || p.columns < kWarps * kKeys) return false;
  const std::int64_t groups = std::int64_t{p.batch} * p.kv_heads;
  return lines_of(p) <= kLines || (lines_of(p) <= 4 * kLines && groups < device.multiprocessors);
}

// Always merged, even of one part.
int decode_attention_parts(const AttentionRun& p, const DeviceLimits& device) {
  return std::max(attention_parts(p, kLines, kWarps * kKeys, device), 2);
}

void launch_decode_attention(const AttentionRun& p, const AttentionParts& parts, const Start& start) {
  const int tiles = (lines_of(p) + kLines - 1) / kLines;
  const unsigned blocks = grid_for(std::int64_t{p.batch} * p.kv_heads * tiles * parts.count, 1);
  const auto launch = [&](auto form) { start_kernel(start, attend_part<decltype(form)>, blocks, kThreads, 0, p, parts, tiles); };
  const auto with_type = [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool masked = p.masked || p.softcap > 0 || !(p.scale > 0), small = std::max(p.size, p.value_size) <= 64;
    if (small) masked ? launch(Form<T, 64, true>()) : launch(Form<T, 64, false>());
    else masked ? launch(Form<T, 128, true>()) : launch(Form<T, 128, false>());
  };
  if (p.type == DType::f16) with_type(Tag<__half>());
  else with_type(Tag<__nv_bfloat16>());
  launch_merge_attention(p, parts, start);
}

}  // namespace tandem::cuda
