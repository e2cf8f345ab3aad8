// Attention of one device over strided views: what its kernels are given, and which there are.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "device/cuda/start.h"
#include "ops/attention/decode_split.h"
#include "tandem/types.h"

namespace tandem::cuda {

// Between neighbours, in elements; elements of a row are contiguous.
struct AttentionSteps {
  std::int64_t batch, head, row;
};

// One or more integers on the device, i32 or i64.
struct DeviceIntegers {
  const void* at;  // null: none
  bool wide;
};

struct AttentionRun {
  DType type;  // of q, k, v and out: f32, f16 or bf16
  int batch, heads, kv_heads, rows, columns, size, value_size;
  const void *q, *k, *v;
  void* out;
  AttentionSteps q_steps, k_steps, v_steps, out_steps;

  bool masked;
  const void* mask;
  DType mask_type;            // bool (true: attend), or a float type, added
  AttentionSteps mask_steps;  // 0 where the mask broadcasts
  std::int64_t mask_column_step;

  bool causal;  // row i attends to columns j ≤ i + diagonal + past
  std::int64_t diagonal;
  DeviceIntegers past;  // one number
  // Per batch entry: rows from there on are zeros, columns from there on are not attended to. Counted over whole sequences, in which the
  // first row and column are first_row and first_column.
  DeviceIntegers row_counts, column_counts;
  std::int64_t first_row, first_column;
  float scale, softcap;  // softcap 0: none
  bool empty_is_nan;     // the result of a row that attends to nothing, else 0

  // [batch, heads, rows], dense; null: not wanted. The natural logarithm of each row's sum of exp(score), by which results over different
  // columns are merged; −∞ where a row attends to nothing.
  float* lse;
  // Both or neither, instead of `out`, aligned to 16: each row's mean of values in f32, [batch, heads, rows, value_size], and its largest
  // score and sum of exp(score − largest), [batch, heads, rows]; −∞ and 0 where it attends to nothing. Unlike the logarithm, these two tell
  // how many keys a row attends to whose mask adds the lowest number.
  float* sums;
  float2* lines;
};

struct DeviceLimits {
  int multiprocessors, shared_bytes;  // that a block may ask for
  bool clusters = false;              // of blocks that read one another's shared memory
};

// The longest rows of q, k and v that the kernels take.
inline constexpr int kMostAttentionSize = 256;

// Where few lines attend to many keys, the keys are split into `count` parts whose results, by [group, part, line], are merged: groups are
// pairs of a batch entry and a kv head. The plain kernel needs no memory, and merges nothing, for one part.
struct AttentionParts {
  int count;
  float2* lines;  // a line's largest score, and its sum of weights exp(score − largest); −∞ and 0 where it attends to nothing
  float* sums;    // its sum of weights times values, [value_size]; aligned to 16
};

// How many parts keep the device busy, of kernels that give a block `tile_lines` lines and walk over keys `tile_keys` at a time.
int attention_parts(const AttentionRun& run, int tile_lines, int tile_keys, const DeviceLimits& device);
std::size_t attention_parts_bytes(const AttentionRun& run, int count);
AttentionParts attention_parts_in(const AttentionRun& run, int count, void* memory);  // aligned to 16
void launch_merge_attention(const AttentionRun& run, const AttentionParts& parts, const Start& start);

// Functions prepare_… are called before, when no graph is being captured; like …_parts and takes_… they look at no pointer.
// The plain kernel takes everything.
int plain_attention_parts(const AttentionRun& run, const DeviceLimits& device);
cudaError_t prepare_plain_attention(const AttentionRun& run);
void launch_plain_attention(const AttentionRun& run, const AttentionParts& parts, cudaStream_t stream);

// On tensor cores: 16-bit floats whose rows begin at, and are, multiples of 16 bytes. At launch q, k, v and out must be such addresses.
bool takes_tensor_attention(const AttentionRun& run, const DeviceLimits& device);
cudaError_t prepare_tensor_attention(const AttentionRun& run, const DeviceLimits& device);
void launch_tensor_attention(const AttentionRun& run, const DeviceLimits& device, cudaStream_t stream);

// The same for few queries over many keys, where that is worth it. Parts are merged by the last block of each task, which the zeros at
// `arrived` tell, one for each of decode_tasks(); they are zeros again afterwards.
bool takes_decode_attention(const AttentionRun& run, const DeviceLimits& device);
cudaError_t prepare_decode_attention(const AttentionRun& run, const DeviceLimits& device, DecodeSplit& split);
std::int64_t decode_tasks(const AttentionRun& run);
void launch_decode_attention(const AttentionRun& run, const DecodeSplit& split, const AttentionParts& parts, unsigned* arrived,
                             const Start& start);

}  // namespace tandem::cuda
