// Attention of few queries over many keys, for f16 and bf16: keys are shared out over the warps of a block, the blocks of a cluster, and
// parts, as decode_split() says. Warps merge in shared memory, blocks by reading one another's, and the last block of a
// task merges its parts.
#include <vector>

#include "device/cuda/dependent.cuh"
#include "ops/arrivals_cuda.cuh"
#include "ops/attention/decode_keys_cuda.cuh"
#include "ops/cluster_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kMostWarps = 4, kMostCluster = 16;  // clusters of more than 8 are for GPUs that can have them
// Times 16 keys of a warp: asked for before the wait, and left when the next kernel may begin, where a call asks early. It then fetches its
// first keys while this one merges and memory idles. Of what starts sooner, memory is taken from this one; later, or where there are many
// keys, blocks that have ended make room for several of the next on one multiprocessor.
constexpr int kStepsBefore = 4, kStepsBeside = 5;

// What a block, and in the end its cluster, knows of the lines.
template <typename F>
struct Merged {
  float4 sums[kDecodeLines][F::kSize / 4];
  float tops[kDecodeLines], totals[kDecodeLines];
  float warp_tops[kMostWarps][kDecodeLines], warp_totals[kMostWarps][kDecodeLines];
  float result_tops[kDecodeLines];  // of their own: whoever merges still reads the others
  unsigned careful;                 // a bit per line whose result is no number
};

// Where word w of a line lies among a warp's sums, in floats: four lines' lanes write at once, to different banks.
template <typename F>
__device__ __forceinline__ int sums_place(int line, int word) {
  return line * F::kSize + 8 * (word ^ line % 4);
}

// A warp's results to shared memory, where its stages were.
template <typename F>
__device__ __forceinline__ void leave_rows(const AttentionRun& p, const Rows<F>& rows, int lines, float* warp_sums, Merged<F>& merged) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, low = lane % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int line = lane / 4 + 8 * r;
    float total = rows.totals[r];
    total += __shfl_xor_sync(0xffffffff, total, 1);
    total += __shfl_xor_sync(0xffffffff, total, 2);
    const bool scaled = F::kMasked || rows.tops[r] == kLowest;
    if (low == 0) merged.warp_tops[warp][line] = scaled ? rows.tops[r] : rows.tops[r] * p.scale, merged.warp_totals[warp][line] = total;
    if (line >= lines) continue;
#pragma unroll
    for (int w = 0; w < F::kWords; ++w)
      *reinterpret_cast<float2*>(warp_sums + sums_place<F>(line, w) + 2 * low) = make_float2(rows.sums[w][r][0], rows.sums[w][r][1]);
  }
}

__device__ __forceinline__ void add_weighted(float4& to, const float4& more, float weight) {
  to.x += more.x * weight, to.y += more.y * weight, to.z += more.z * weight, to.w += more.w * weight;
}

struct LineSum {
  float top, total;
  float4 sum;
};

// Adds what another knows of four values of a line.
__device__ __forceinline__ void add_line(LineSum& to, float top, float total, const float4& sum) {
  const float weight = part_weight(top, to.top);
  to.total += total * weight;
  add_weighted(to.sum, sum, weight);
}

// Four values of a line over the warps of the block. `room`: the first warp's stages.
template <typename F>
__device__ __forceinline__ LineSum merge_warps(const std::byte* room, const Merged<F>& merged, int line, int chunk) {
  constexpr int kWarpBytes = kDecodeStages * KeyQueue<F>::kStageBytes;
  const int warps = blockDim.x / 32;
  LineSum result = {kLowest, 0, {}};
#pragma unroll
  for (int w = 0; w < kMostWarps; ++w)
    if (w < warps) result.top = fmaxf(result.top, merged.warp_tops[w][line]);
#pragma unroll 1
  for (int w = 0; w < warps; ++w) {
    const auto* sums = reinterpret_cast<const float*>(room + w * kWarpBytes) + sums_place<F>(line, chunk / 2) + chunk % 2 * 4;
    add_line(result, merged.warp_tops[w][line], merged.warp_totals[w][line], *reinterpret_cast<const float4*>(sums));
  }
  return result;
}

// The same over the blocks of the cluster. By whole warps, 16 neighbours or more of one line: each knows of one block.
template <typename F>
__device__ __forceinline__ LineSum merge_blocks(const Merged<F>& merged, int line, int chunk, int cluster) {
  const int block = threadIdx.x % kMostCluster;
  const float own = block < cluster ? read_cluster(&merged.tops[line], block) : kLowest;
  const float own_total = block < cluster ? read_cluster(&merged.totals[line], block) : 0;
  float4 sums[kMostCluster];
#pragma unroll
  for (int i = 0; i < kMostCluster; ++i)
    if (i < cluster) sums[i] = read_cluster(&merged.sums[line][chunk], i);
  LineSum result = {own, 0, {}};
#pragma unroll
  for (int step = kMostCluster / 2; step > 0; step /= 2) result.top = fmaxf(result.top, __shfl_xor_sync(0xffffffff, result.top, step));
  const float weight = part_weight(own, result.top);
  result.total = own_total * weight;
#pragma unroll
  for (int step = kMostCluster / 2; step > 0; step /= 2) result.total += __shfl_xor_sync(0xffffffff, result.total, step);
#pragma unroll
  for (int i = 0; i < kMostCluster; ++i) {
    const float of_block = __shfl_sync(0xffffffff, weight, i, kMostCluster);
    if (i < cluster) add_weighted(result.sum, sums[i], of_block);
  }
  return result;
}

// Which lines a block has, and which of its cluster's it merges: every cluster-th from `rank` on.
struct Place {
  int group, part, first, lines, rank, cluster;  // lines first … first + lines − 1 of the group
};

template <typename F>
__device__ __forceinline__ void store_part(const AttentionRun& p, const AttentionParts& parts, const Place& at, int line, int chunk,
                                           const LineSum& own) {
  const std::int64_t place = part_index(p, parts, at.group, at.part, at.first + line);
  if (chunk == 0) parts.lines[place] = make_float2(own.top, own.total);
  if (4 * chunk >= p.value_size) return;
  *reinterpret_cast<float4*>(parts.sums + place * p.value_size + 4 * chunk) = own.sum;
}

template <typename F>
__device__ __forceinline__ void store_result(const AttentionRun& p, const Place& at, int line, int chunk, const LineSum& own,
                                             Merged<F>& merged) {
  using T = typename F::T;
  const int batch = at.group / p.kv_heads, kv_head = at.group % p.kv_heads;
  const Line whose = line_of(p, batch, kv_head, at.first + line);
  const bool empty = own.top == kLowest && own.total == 0;
  const float nothing = p.empty_is_nan && whose.counts ? __int_as_float(0x7fffffff) : 0.0f;
  const float share = 1.0f / own.total;
  const auto value = [&](float sum) { return empty ? nothing : sum * share; };
  const float values[4] = {value(own.sum.x), value(own.sum.y), value(own.sum.z), value(own.sum.w)};
  if (chunk == 0) {
    store_total(p, batch, kv_head, at.first + line, own.top, own.total);
    merged.result_tops[line] = own.top;
  }
  if (4 * chunk >= p.value_size) return;
  if (p.sums)
    *reinterpret_cast<float4*>(p.sums + dense_line(p, batch, kv_head, at.first + line) * p.value_size + 4 * chunk) =
        make_float4(values[0], values[1], values[2], values[3]);
  else
    *reinterpret_cast<uint2*>(static_cast<T*>(p.out) + offset_of(p.out_steps, batch, whose) + 4 * chunk) =
        make_uint2(pack<T>(values[0], values[1]), pack<T>(values[2], values[3]));
  if (!empty && !(isfinite(values[0]) && isfinite(values[1]) && isfinite(values[2]) && isfinite(values[3])))
    atomicOr(&merged.careful, 1u << line);
}

template <typename F>
__device__ __forceinline__ void store_line(const AttentionRun& p, const AttentionParts& parts, const Place& at, int line, int chunk,
                                           const LineSum& own, Merged<F>& merged) {
  if (parts.count > 1) store_part<F>(p, parts, at, line, chunk, own);
  else store_result(p, at, line, chunk, own, merged);
}

// What the warps of the block, and those of its cluster, have found.
template <typename F>
__device__ __forceinline__ void store_lines(const AttentionRun& p, const AttentionParts& parts, const Place& at, const std::byte* room,
                                            Merged<F>& merged) {
  constexpr int kChunks = F::kSize / 4;
  for (int index = threadIdx.x; index < at.lines * kChunks; index += blockDim.x) {
    const int line = index / kChunks, chunk = index % kChunks;
    const LineSum own = merge_warps(room, merged, line, chunk);
    if (at.cluster == 1) {
      store_line(p, parts, at, line, chunk, own, merged);
      continue;
    }
    merged.sums[line][chunk] = own.sum;
    if (chunk == 0) merged.tops[line] = own.top, merged.totals[line] = own.total;
  }
  if (at.cluster == 1) return;
  wait_for_cluster();
  const int own_lines = (at.lines - at.rank + at.cluster - 1) / at.cluster;  // none where the rank is past the lines
  const int most = (own_lines * kChunks + 31) / 32 * 32;
  for (int index = threadIdx.x; index < most; index += blockDim.x) {
    const int line = at.rank + at.cluster * (index / kChunks), chunk = index % kChunks;
    const LineSum own = merge_blocks(merged, min(line, kDecodeLines - 1), chunk, at.cluster);
    if (line < at.lines) store_line(p, parts, at, line, chunk, own, merged);
  }
  wait_for_cluster();  // nobody reads this block's memory any more
}

// By the block that was the last to leave its part. All parts come to `room` at once. What is run once is written to be short: the
// multiprocessor has to fetch the instructions too.
template <typename F>
__device__ __forceinline__ void merge_parts(const AttentionRun& p, const AttentionParts& parts, const Place& at, std::byte* room,
                                            Merged<F>& merged) {
  constexpr int kChunks = F::kSize / 4, kNeighbours = 16, kEach = kMostDecodeParts / kNeighbours;
  const int stride = blockDim.x * 16, lane = threadIdx.x % kNeighbours;
  std::byte* const own_room = room + threadIdx.x * 16;
#pragma unroll 1
  for (int index = threadIdx.x; index < (at.lines * kChunks + 31) / 32 * 32; index += blockDim.x) {
    const int line = min(index / kChunks, at.lines - 1), chunk = index % kChunks;
    const std::int64_t first = part_index(p, parts, at.group, 0, at.first + line), step = lines_of(p);
    const float* from = parts.sums + first * p.value_size + 4 * chunk;
#pragma unroll 1
    for (int part = 0; part < parts.count && 4 * chunk < p.value_size; ++part, from += step * p.value_size)
      copy_beside(shared_address(own_room + part * stride), from, 16);
    end_copies();
    // Sixteen neighbours, who have one line, know of every sixteenth part each.
    float tops[kEach], weights[kEach];
    LineSum own = {kLowest, 0, {}};
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int part = lane + i * kNeighbours;
      const float2 known = part < parts.count ? __ldcg(parts.lines + first + part * step) : make_float2(kLowest, 0);
      tops[i] = known.x, weights[i] = known.y;
      own.top = fmaxf(own.top, known.x);
    }
#pragma unroll
    for (int to = kNeighbours / 2; to > 0; to /= 2) own.top = fmaxf(own.top, __shfl_xor_sync(0xffffffff, own.top, to));
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const float total = weights[i];
      weights[i] = part_weight(tops[i], own.top);
      own.total += total * weights[i];
    }
#pragma unroll
    for (int to = kNeighbours / 2; to > 0; to /= 2) own.total += __shfl_xor_sync(0xffffffff, own.total, to);
    wait_for_copies();
#pragma unroll 1
    for (int part = 0; part < parts.count; ++part) {
      const float of_neighbour = part < kNeighbours ? weights[0] : part < 2 * kNeighbours ? weights[1] : weights[2];
      add_weighted(own.sum, *reinterpret_cast<const float4*>(own_room + part * stride),
                   __shfl_sync(0xffffffff, of_neighbour, part, kNeighbours));
    }
    if (index < at.lines * kChunks) store_result(p, at, line, chunk, own, merged);
  }
  __syncthreads();
}
static_assert(kMostDecodeParts == 48);  // as merge_parts() chooses among weights, and as a warp's stages hold for each thread of its

template <typename F>
__device__ __forceinline__ void load_queries(const AttentionRun& p, const Line (&own)[2], int batch, Rows<F>& rows) {
  const int low = threadIdx.x % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const auto* from = static_cast<const typename F::T*>(p.q) + offset_of(p.q_steps, batch, own[r]) + 2 * low;
#pragma unroll
    for (int w = 0; w < F::kWords; ++w)
      rows.q[r][w] = own[r].end > 0 && 8 * w < p.size ? *reinterpret_cast<const unsigned*>(from + 8 * w) : 0;
  }
}

template <typename F>
__global__ void __launch_bounds__(kMostWarps * 32, 2) attend_part(const __grid_constant__ AttentionRun p, const AttentionParts parts,
                                                                  unsigned* arrived, int tiles, int cluster, bool asks_early) {
  const bool waits_first = p.row_counts.at || p.column_counts.at || p.past.at;  // what lines there are is known only then
  if (waits_first) wait_for_previous();
  using T = typename F::T;
  extern __shared__ __align__(256) std::byte room[];
  __shared__ Merged<F> merged;
  const int rank = blockIdx.x % cluster, part = blockIdx.x / cluster % parts.count, task = blockIdx.x / (cluster * parts.count);
  const int group = task / tiles, batch = group / p.kv_heads, kv_head = group % p.kv_heads, first = task % tiles * kDecodeLines;
  const int warp = threadIdx.x / 32, high = threadIdx.x % 32 / 4, step = blockDim.x / 32 * kDecodeKeys;
  std::byte* const own_room = room + warp * kDecodeStages * KeyQueue<F>::kStageBytes;
  if (threadIdx.x == 0) merged.careful = 0;

  Rows<F> rows = {};
  Line own[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    own[r] = line_of(p, batch, kv_head, first + high + 8 * r);
    rows.ends[r] = own[r].end;
    rows.mask_rows[r] = offset_of(p.mask_steps, batch, own[r]);
    rows.tops[r] = kLowest;
  }
  // The slices share the keys that there really are.
  const int end = __reduce_max_sync(0xffffffff, max(rows.ends[0], rows.ends[1]));
  const int steps = (end + kDecodeKeys - 1) / kDecodeKeys, slices = cluster * parts.count, per = (steps + slices - 1) / slices;
  const int slice_begin = (part * cluster + rank) * per * kDecodeKeys, slice_end = min(end, slice_begin + per * kDecodeKeys);
  const KeyQueue<F> queue = {static_cast<const T*>(p.k) + batch * p.k_steps.batch + kv_head * p.k_steps.head,
                             static_cast<const T*>(p.v) + batch * p.v_steps.batch + kv_head * p.v_steps.head, shared_address(own_room)};
  const float factor = F::kMasked ? kLog2E : p.scale * kLog2E;
  int key = slice_begin + warp * kDecodeKeys;
  if (!waits_first) {
#pragma unroll 1
    for (int i = 0; asks_early && i < kStepsBefore; ++i) queue.announce(p, key + i * step, slice_end);
    wait_for_previous();
  }

  load_queries(p, own, batch, rows);
#pragma unroll 1
  for (int stage = 0; stage < kDecodeStages; ++stage) {
    if (key + stage * step < slice_end) queue.ask(p, stage, key + stage * step, slice_end);
    end_copies();
  }
  // Not before: of what starts earlier than the next kernel, blocks would crowd on few multiprocessors.
  const int last_keys = asks_early ? slice_end - kStepsBeside * step : key;
  if (key >= last_keys) let_next_begin();
#pragma unroll 1
  for (int stage = 0; key < slice_end; key += step, stage = stage + 1 == kDecodeStages ? 0 : stage + 1) {
    wait_for_copies_but<kDecodeStages - 1>();
    __syncwarp();
    attend_keys<F>(p, factor, queue.room + stage * KeyQueue<F>::kStageBytes, key, slice_end, rows);
    __syncwarp();
    if (key + kDecodeStages * step < slice_end) queue.ask(p, stage, key + kDecodeStages * step, slice_end);
    end_copies();
    if (key < last_keys && key + step >= last_keys) let_next_begin();
  }

  const int lines = min(kDecodeLines, lines_of(p) - first);
  leave_rows<F>(p, rows, lines, reinterpret_cast<float*>(own_room), merged);
  __syncthreads();
  const Place place = {group, part, first, lines, rank, cluster};
  store_lines<F>(p, parts, place, room, merged);
  if (parts.count == 1) __syncthreads();
  else if (is_last_to_arrive(arrived + task, static_cast<unsigned>(slices))) merge_parts<F>(p, parts, place, room, merged);
  else return;
  if (merged.careful == 0) return;
  for (int line = warp; line < lines; line += blockDim.x / 32)
    if (merged.careful >> line & 1) careful_line<T>(p, batch, kv_head, first + line, merged.result_tops[line]);
}

// Calls `work` with the form that a run takes.
template <typename Work>
auto with_form(const AttentionRun& p, const Work& work) {
  const auto with_type = [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool masked = p.masked || p.softcap > 0 || !(p.scale > 0), small = std::max(p.size, p.value_size) <= 64;
    if (small) return masked ? work(Form<T, 64, true>()) : work(Form<T, 64, false>());
    return masked ? work(Form<T, 128, true>()) : work(Form<T, 128, false>());
  };
  return p.type == DType::f16 ? with_type(Tag<__half>()) : with_type(Tag<__nv_bfloat16>());
}

template <typename F>
constexpr int room_bytes(int warps) {
  return warps * kDecodeStages * KeyQueue<F>::kStageBytes;
}

std::int64_t tiles_of(const AttentionRun& p) { return (lines_of(p) + kDecodeLines - 1) / kDecodeLines; }

// How many blocks of such clusters the GPU runs at once: 0 where it cannot have them.
template <typename F>
int at_once(const DeviceLimits& device, int cluster, int warps) {
  int count = 0;
  if (cluster == 1) {
    if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, attend_part<F>, warps * 32, room_bytes<F>(warps)) != cudaSuccess) count = 0;
    count *= device.multiprocessors;
  } else {
    Start start(nullptr);
    start.cluster = static_cast<unsigned>(cluster);
    const cudaError_t error = with_configuration(start, cluster, warps * 32, room_bytes<F>(warps), [&](const cudaLaunchConfig_t* as) {
      return cudaOccupancyMaxActiveClusters(&count, attend_part<F>, as);
    });
    count = error == cudaSuccess ? count * cluster : 0;
  }
  cudaGetLastError();  // a size that the GPU refuses is no error of anybody's
  return count;
}

}  // namespace

bool takes_decode_attention(const AttentionRun& p, const DeviceLimits& device) {
  if (!takes_tensor_attention(p, device) || std::max(p.size, p.value_size) > 128 || p.columns < 4 * kDecodeKeys) return false;
  const std::int64_t groups = std::int64_t{p.batch} * p.kv_heads;
  return lines_of(p) <= kDecodeLines || (lines_of(p) <= 4 * kDecodeLines && groups < device.multiprocessors);
}

cudaError_t prepare_decode_attention(const AttentionRun& p, const DeviceLimits& device, DecodeSplit& split) {
  return with_form(p, [&](auto form) {
    using F = decltype(form);
    const int most = std::min<int>(kMostWarps, (device.shared_bytes - static_cast<int>(sizeof(Merged<F>))) / room_bytes<F>(1));
    cudaError_t error = cudaFuncSetAttribute(attend_part<F>, cudaFuncAttributeMaxDynamicSharedMemorySize, room_bytes<F>(most));
    if (error == cudaSuccess && device.clusters)
      error = cudaFuncSetAttribute(attend_part<F>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    const int on_one = std::max(at_once<F>(device, 1, most) / device.multiprocessors, 1);
    std::vector<DecodeBlocks> kinds;
    for (int cluster = 1; error == cudaSuccess && cluster <= (device.clusters ? kMostCluster : 1); ++cluster)
      kinds.push_back({cluster, most, at_once<F>(device, cluster, most), on_one});
    const std::int64_t steps = (p.columns + kDecodeKeys - 1) / kDecodeKeys;
    split = decode_split(decode_tasks(p), steps, KeyQueue<F>::kStageBytes, device.multiprocessors, kinds);
    return error;
  });
}

std::int64_t decode_tasks(const AttentionRun& p) { return std::int64_t{p.batch} * p.kv_heads * tiles_of(p); }

void launch_decode_attention(const AttentionRun& p, const DecodeSplit& split, const AttentionParts& parts, unsigned* arrived,
                             const Start& start) {
  const unsigned blocks = grid_for(decode_tasks(p) * parts.count * split.cluster, 1);
  Start first = start;
  first.cluster = static_cast<unsigned>(split.cluster);
  with_form(p, [&](auto form) {
    using F = decltype(form);
    start_kernel(first, attend_part<F>, blocks, split.warps * 32, room_bytes<F>(split.warps), p, parts, arrived,
                 static_cast<int>(tiles_of(p)), split.cluster, split.asks_early);
  });
}

}  // namespace tandem::cuda
