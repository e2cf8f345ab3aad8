// Merging the parts of attention over parts of the keys: a block per line, whose warps take parts in turn.
#include "device/cuda/dependent.cuh"
#include "ops/attention/lines_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kMost = kMostAttentionSize / 32;  // values of a lane, 32 apart

// The sums of the warp's parts, relative to the line's top.
__device__ __forceinline__ float add_parts(const AttentionRun& p, const AttentionParts& parts, int group, int line, float top,
                                           float (&sums)[kMost]) {
  const int lane = threadIdx.x % 32;
  float total = 0;
#pragma unroll 2
  for (int part = threadIdx.x / 32; part < parts.count; part += kWarps) {
    const std::int64_t at = part_index(p, parts, group, part, line);
    const float2 own = parts.lines[at];
    const float weight = part_weight(own.x, top);
    total += own.y * weight;
#pragma unroll
    for (int i = 0; i < kMost; ++i)
      if (lane + 32 * i < p.value_size) sums[i] += parts.sums[at * p.value_size + lane + 32 * i] * weight;
  }
  return total;
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) merge(const __grid_constant__ AttentionRun p, const AttentionParts parts) {
  begin_dependent();
  __shared__ float warp_sums[kWarps][kMostAttentionSize], warp_totals[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int group = static_cast<int>(blockIdx.x / lines_of(p)), line = static_cast<int>(blockIdx.x % lines_of(p));
  float top = kLowest, sums[kMost] = {};
  for (int part = lane; part < parts.count; part += 32) top = fmaxf(top, parts.lines[part_index(p, parts, group, part, line)].x);
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, step));
  const float own_total = add_parts(p, parts, group, line, top, sums);
#pragma unroll
  for (int i = 0; i < kMost; ++i) warp_sums[warp][lane + 32 * i] = sums[i];
  if (lane == 0) warp_totals[warp] = own_total;
  __syncthreads();
  const int d = threadIdx.x, batch = group / p.kv_heads, kv_head = group % p.kv_heads;
  const Line own = line_of(p, batch, kv_head, line);
  float total = 0, sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) total += warp_totals[w], sum += warp_sums[w][d];
  const bool empty = top == kLowest && total == 0;
  const float nothing = p.empty_is_nan && own.counts ? __int_as_float(0x7fffffff) : 0.0f, value = empty ? nothing : sum / total;
  const bool wanted = d < p.value_size;
  if (d == 0) store_total(p, batch, kv_head, line, top, total);
  if (wanted) store_value<T>(p, offset_of(p.out_steps, batch, own), dense_line(p, batch, kv_head, line), d, value);
  if (__syncthreads_or(wanted && !empty && !isfinite(value)) && warp == 0) careful_line<T>(p, batch, kv_head, line, top);
}

std::int64_t part_lines(const AttentionRun& p, int count) { return std::int64_t{count} * p.batch * p.kv_heads * lines_of(p); }
// Of `lines` in memory, so that sums are aligned.
std::int64_t even(std::int64_t lines) { return (lines + 1) / 2 * 2; }

}  // namespace

int attention_parts(const AttentionRun& p, int tile_lines, int tile_keys, const DeviceLimits& device) {
  constexpr std::int64_t kMostParts = 64;
  const std::int64_t tiles = (lines_of(p) + tile_lines - 1) / tile_lines, blocks = tiles * p.batch * p.kv_heads;
  const std::int64_t wanted = 2 * device.multiprocessors / blocks;
  const std::int64_t most = std::min<std::int64_t>(kMostParts, (p.columns + tile_keys - 1) / tile_keys);
  return static_cast<int>(std::max<std::int64_t>(std::min(wanted, most), 1));
}

std::size_t attention_parts_bytes(const AttentionRun& p, int count) {
  if (count == 1) return 0;
  const std::int64_t lines = part_lines(p, count);
  return static_cast<std::size_t>(even(lines)) * sizeof(float2) + static_cast<std::size_t>(lines * p.value_size) * sizeof(float);
}

AttentionParts attention_parts_in(const AttentionRun& p, int count, void* memory) {
  float2* lines = static_cast<float2*>(memory);
  return {count, lines, reinterpret_cast<float*>(lines + even(part_lines(p, count)))};
}

void launch_merge_attention(const AttentionRun& p, const AttentionParts& parts, const Start& start) {
  static_assert(kThreads == kMostAttentionSize);  // a thread per value
  const unsigned blocks = grid_for(part_lines(p, 1), 1);
  with_float_type(p.type, [&](auto tag) { start_kernel(start, merge<typename decltype(tag)::type>, blocks, kThreads, 0, p, parts); });
}

}  // namespace tandem::cuda
