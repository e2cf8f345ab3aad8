// Attention of one device over strided views: what its kernels are given, and which there are.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

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
  DType mask_type;  // bool (true: attend), or a float type, added
  AttentionSteps mask_steps;  // 0 where the mask broadcasts
  std::int64_t mask_column_step;

  bool causal;            // row i attends to columns j ≤ i + diagonal + past
  std::int64_t diagonal;
  DeviceIntegers past;    // one number
  // Per batch entry: rows from there on are zeros, columns from there on are not attended to.
  DeviceIntegers row_counts, column_counts;
  float scale, softcap;   // softcap 0: none
  bool empty_is_nan;      // the result of a row that attends to nothing, else 0
};

// The longest rows of q, k and v that the kernels take.
inline constexpr int kMostAttentionSize = 256;

// prepare_…, which looks at no pointer, is called before, when no graph is being captured. The plain kernel takes everything.
cudaError_t prepare_plain_attention(const AttentionRun& run);
void launch_plain_attention(const AttentionRun& run, cudaStream_t stream);

// On tensor cores: 16-bit floats whose rows begin at, and are, multiples of 16 bytes. At launch q, k, v and out must be such addresses.
bool takes_tensor_attention(const AttentionRun& run, int shared_bytes);
cudaError_t prepare_tensor_attention(const AttentionRun& run, int multiprocessors);
void launch_tensor_attention(const AttentionRun& run, int multiprocessors, cudaStream_t stream);

// Few queries over many keys, of what the tensor cores take: worth it where this says so. `memory` is aligned to 8; needs no prepare.
bool takes_decode_attention(const AttentionRun& run, int multiprocessors);
std::size_t decode_attention_workspace(const AttentionRun& run, int multiprocessors);
void launch_decode_attention(const AttentionRun& run, int multiprocessors, void* memory, cudaStream_t stream);

}  // namespace tandem::cuda
