#include "ops/attention/merge_cuda.h"

#include <limits>

#include "device/cuda/registers.cuh"
#include "ops/types_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr float kNothing = -std::numeric_limits<float>::infinity();

// A warp per line, a lane every 32nd of its values.
template <typename T>
__global__ void __launch_bounds__(kThreads, kRoomBefore90) merge_parts(const __grid_constant__ AttentionMerge m) {
  const std::int64_t line = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (line >= m.lines) return;
  const float before = m.begun ? m.sums_lse[line] : kNothing;
  float top = before;
  for (int i = 0; i < m.count; ++i) {
    const float lse = m.lse[i * m.lse_step + line];
    top = lse > top || lse != lse ? lse : top;
  }
  const bool empty = top == kNothing;
  const auto weight_of = [&](float lse) { return lse == kNothing ? 0.0f : expf(lse - top); };
  float total = weight_of(before);
  for (int i = 0; i < m.count; ++i) total += weight_of(m.lse[i * m.lse_step + line]);
  for (int d = threadIdx.x % 32; d < m.size; d += 32) {
    const std::int64_t at = line * m.size + d;
    float sum = before == kNothing ? 0.0f : m.sums[at] * weight_of(before);
    for (int i = 0; i < m.count; ++i) {
      const float lse = m.lse[i * m.lse_step + line];
      if (lse != kNothing) sum += to_float(static_cast<const T*>(m.parts)[i * m.part_step + at]) * weight_of(lse);
    }
    if (!m.out) m.sums[at] = empty ? 0.0f : sum / total;
    else
      static_cast<T*>(m.out)[(line / m.rows * m.row_lines + line % m.rows) * m.size + d] =
          from_float<T>(!empty           ? sum / total
                        : m.empty_is_nan ? __int_as_float(0x7fffffff)
                                         : 0.0f);
  }
  __syncwarp();
  if (!m.out && threadIdx.x % 32 == 0) m.sums_lse[line] = empty ? kNothing : top + logf(total);
}

}  // namespace

void launch_merge_parts(const AttentionMerge& m, cudaStream_t stream) {
  if (m.lines == 0) return;
  const auto blocks = static_cast<unsigned>((m.lines + kWarps - 1) / kWarps);
  with_float_type(m.type, [&](auto tag) { merge_parts<typename decltype(tag)::type><<<blocks, kThreads, 0, stream>>>(m); });
}

}  // namespace tandem::cuda
