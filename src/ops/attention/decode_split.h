// How attention of few queries over many keys is shared out over a GPU.
#pragma once

#include <cstdint>
#include <span>

namespace tandem::cuda {

// Of one task, the lines that share a kv head: `parts` clusters of `cluster` blocks of `warps` warps, each with its share of the keys. The
// blocks of a cluster merge what they have; the last block of a task merges the parts.
inline constexpr int kMostDecodeParts = 48;
struct DecodeSplit {
  int cluster = 1, parts = 1, warps = 1;
  bool asks_early = false;  // for its first keys, while the call before still merges; and lets the next one begin late enough for that
};

// A kind of block, and how many of it the GPU holds at once.
struct DecodeBlocks {
  int cluster, warps;
  int at_once;  // 0: the GPU cannot have such clusters
  int on_one;   // how many of them, without clusters, a multiprocessor holds
};

// The split that a model of the time says is fastest. `steps` of 16 keys, of `step_bytes` each, has every one of `tasks`; `kinds` holds one
// with a cluster of 1 that the GPU can have.
DecodeSplit decode_split(std::int64_t tasks, std::int64_t steps, int step_bytes, int multiprocessors, std::span<const DecodeBlocks> kinds);

}  // namespace tandem::cuda
