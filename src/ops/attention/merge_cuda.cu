#include "ops/attention/merge_cuda.h"

#include "device/cuda/dependent.cuh"
#include "device/cuda/registers.cuh"
#include "ops/attention/lines_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// A line's top and total in a part.
__device__ __forceinline__ float2 total_of(const AttentionMerge& m, int part, std::int64_t line) {
  const std::int64_t at = part * m.line_step + line;
  if (m.totals) return m.totals[at];
  return make_float2(m.lse[at], m.lse[at] == kLowest ? 0.0f : 1.0f);
}

__device__ __forceinline__ float larger(float top, float other) { return other > top || other != other ? other : top; }
__device__ __forceinline__ float weight_of(float2 own, float top) { return own.y == 0 ? 0.0f : own.y * part_weight(own.x, top); }

// What a line is that attends to nothing.
__device__ __forceinline__ float nothing_of(const AttentionMerge& m, std::int64_t line) {
  if (!m.empty_is_nan) return 0.0f;
  const bool counts = !m.row_counts.at || m.first_row + line % m.rows < integer_at(m.row_counts, static_cast<int>(line / m.batch_lines));
  return counts ? __int_as_float(0x7fffffff) : 0.0f;
}

// A warp per line, a lane every 32nd of its values.
template <typename T>
__global__ void __launch_bounds__(kThreads, kRoomBefore90) merge_parts(const __grid_constant__ AttentionMerge m) {
  const std::int64_t line = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (line >= m.lines) return;
  const float2 before = m.begun ? m.sums_totals[line] : make_float2(kLowest, 0.0f);
  float top = before.x;
  for (int i = 0; i < m.count; ++i) top = larger(top, total_of(m, i, line).x);
  const float before_weight = weight_of(before, top);
  float total = before_weight;
  for (int i = 0; i < m.count; ++i) total += weight_of(total_of(m, i, line), top);
  const bool empty = total == 0;
  for (int d = threadIdx.x % 32; d < m.size; d += 32) {
    const std::int64_t at = line * m.size + d;
    float sum = before_weight == 0 ? 0.0f : m.sums[at] * before_weight;
    for (int i = 0; i < m.count; ++i) {
      const float weight = weight_of(total_of(m, i, line), top);
      if (weight == 0) continue;
      const std::int64_t from = i * m.value_step + at;
      sum += (m.totals ? static_cast<const float*>(m.values)[from] : to_float(static_cast<const T*>(m.values)[from])) * weight;
    }
    if (!m.out) m.sums[at] = empty ? 0.0f : sum / total;
    else
      static_cast<T*>(m.out)[(line / m.rows * m.row_lines + line % m.rows) * m.size + d] =
          from_float<T>(empty ? nothing_of(m, line) : sum / total);
  }
  __syncwarp();
  if (!m.out && threadIdx.x % 32 == 0) m.sums_totals[line] = make_float2(top, total);
}

}  // namespace

void launch_merge_parts(const AttentionMerge& m, cudaStream_t stream) {
  if (m.lines == 0) return;
  const auto blocks = static_cast<unsigned>((m.lines + kWarps - 1) / kWarps);
  with_float_type(m.type, [&](auto tag) { start_kernel(stream, merge_parts<typename decltype(tag)::type>, blocks, kThreads, 0, m); });
}

}  // namespace tandem::cuda
