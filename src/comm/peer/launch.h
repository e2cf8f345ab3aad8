// The collectives of peer memory, as launches of kernels into a stream. What they do is said where their arguments are; all ranks of the
// group launch the same in the same order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "comm/peer/layout.h"
#include "tandem/types.h"

namespace tandem::peer {

enum class Fold : std::uint8_t { sum, prod, min, max, avg };

// An array of one float type, seen as words of 16 bytes of which the last may be partly filled.
struct WordArrays {
  const void* in;
  void* out;              // may be `in`
  std::int64_t elements;  // at least 1
  bool whole;             // both are aligned to a word, and a whole number of words
};

// All-reduce of f32, f16 or bf16; sums are made in f32. At once: everyone sends everything to everyone. By parts: each rank reduces a part
// and sends it on.
struct ReduceWords {
  WordArrays arrays;
  DType dtype;
  Fold fold;
  int blocks;          // that the GPU may run at once; at most kLanes are used
  bool early = false;  // may start before what is before it in the stream has ended, for which it waits by itself
};
// Elements that one launch can take.
std::int64_t most_at_once(DType dtype, int size, int blocks);
std::int64_t most_by_parts(DType dtype, int size, int blocks);
void launch_at_once(const View& view, const ReduceWords& work, cudaStream_t stream);
void launch_by_parts(const View& view, const ReduceWords& work, cudaStream_t stream);

// x = the sum of `in` over the ranks, rounded to the type; sum = x + offset + residual; y = the norm of the sum's rows, as AddRmsNorm and
// AddLayerNorm have it. Dense [rows, length] of f32, f16 or bf16; offset, scale and bias are [length].
struct ReduceAndNorm {
  const void *in, *residual;
  const void* offset;  // null: none
  const void* scale;
  const void* bias;  // null: none
  void *y, *sum;     // may be `in` or `residual`
  std::int64_t rows, length;
  float epsilon;
  bool centers;  // LayerNorm, not RmsNorm
  DType dtype;
  bool early;     // may start before what is before it in the stream has ended, for which it waits by itself
  bool resident;  // then it may read offset, scale and bias before
  bool aligned;   // all addresses are, to a word
  int blocks;     // that the GPU may run at once, at most kLanes
};
// Whether rows are of whole words, and not too long.
bool can_reduce_and_norm(DType dtype, std::int64_t length, int size);
// As with ReduceWords, at once or by parts; and the rows that one launch can take.
std::int64_t most_rows_at_once(const ReduceAndNorm& work, int size);
std::int64_t most_rows_by_parts(const ReduceAndNorm& work, int size);
void launch_norm_at_once(const View& view, const ReduceAndNorm& work, cudaStream_t stream);
// How at once is done where it is quicker, in a few microseconds: few rows.
bool takes_norm_of_rows(const ReduceAndNorm& work, int size);
void launch_norm_of_rows(const View& view, const ReduceAndNorm& work, cudaStream_t stream);
void launch_norm_by_parts(const View& view, const ReduceAndNorm& work, cudaStream_t stream);

// Any bytes: the stream of in[p], row by row, goes to rank p, which puts what rank r sends into its out[r]; in[rank] goes to out[rank].
// Rows without bytes: nothing goes there.
struct Move {
  Rows in[kMaxRanks], out[kMaxRanks];
  std::int64_t longest;  // of the streams of all ranks; the same on all
  int blocks;
};
void launch_move(const View& view, const Move& work, cudaStream_t stream);

// As Move, but what a rank gets (and its own in[rank]) is reduced in the order of the ranks. `out` is contiguous; null: it gets nothing.
struct Reduce {
  Rows in[kMaxRanks];
  char* out;
  std::int64_t out_bytes;
  std::int64_t longest;
  DType dtype;
  Fold fold;
  int blocks;
};
void launch_reduce(const View& view, const Reduce& work, cudaStream_t stream);

}  // namespace tandem::peer
