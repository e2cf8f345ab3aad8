// What each rank puts into its slots and takes out of the others', collective by collective.
#include <algorithm>
#include <cstring>

#include "comm/reduce.h"
#include "comm/shm/rows.h"
#include "comm/shm/shm_group.h"
#include "core/check.h"

namespace tandem::shm {
namespace {

// Up to here every rank reduces everything; beyond, each reduces its part and the parts are gathered.
constexpr std::size_t kAtOnceBytes = 32 << 10;
constexpr std::size_t kBlockBytes = 4 << 10;

Descriptor describe(const CollectiveCall& call) {
  Descriptor d = {.activity = Activity::collective,
                  .kind = call.kind,
                  .reduction = static_cast<std::int8_t>(call.reduction ? static_cast<int>(*call.reduction) : -1),
                  .dtype = call.dtype,
                  .axis = call.axis,
                  .split_axis = call.split_axis,
                  .concat_axis = call.concat_axis,
                  .root = call.root,
                  .shift = call.shift,
                  .rank = static_cast<std::int32_t>(call.dims.size())};
  std::copy_n(call.dims.begin(), std::min<std::size_t>(call.dims.size(), 8), d.dims);
  return d;
}

std::uint64_t hash_of(const CollectiveCall& call) {
  std::uint64_t hash = static_cast<std::uint64_t>(call.kind) | static_cast<std::uint64_t>(call.dtype) << 8 |
                       static_cast<std::uint64_t>(call.reduction ? 1 + static_cast<int>(*call.reduction) : 0) << 16;
  const auto mix = [&](std::uint64_t value) {
    hash = (hash ^ value) * 0x9e3779b97f4a7c15;
    hash ^= hash >> 29;
  };
  mix(static_cast<std::uint32_t>(call.axis) | static_cast<std::uint64_t>(static_cast<std::uint32_t>(call.root)) << 32);
  mix(static_cast<std::uint32_t>(call.split_axis) | static_cast<std::uint64_t>(static_cast<std::uint32_t>(call.concat_axis)) << 32);
  mix(static_cast<std::uint32_t>(call.shift) | static_cast<std::uint64_t>(call.dims.size()) << 32);
  for (const std::int64_t extent : call.dims) mix(static_cast<std::uint64_t>(extent));
  return hash;
}

const std::byte* input(const CollectiveCall& call) { return static_cast<const std::byte*>(call.in); }
std::byte* output(const CollectiveCall& call) { return static_cast<std::byte*>(call.out); }

void copy(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
}

std::size_t element_bytes(const CollectiveCall& call) { return static_cast<std::size_t>(bits(call.dtype)) / 8; }

// Where the input of rank `index` lies in the concatenation of all.
Rows<std::byte> place_in_output(const CollectiveCall& call, int size, int index) {
  Shape dims(call.dims.begin(), call.dims.end());
  dims[static_cast<std::size_t>(call.axis)] *= size;
  return block_of(output(call), dims, call.axis, static_cast<std::size_t>(size), static_cast<std::size_t>(index), element_bytes(call));
}

Rows<const std::byte> block_of_input(const CollectiveCall& call, int axis, int size, int index) {
  return block_of(input(call), call.dims, axis, static_cast<std::size_t>(size), static_cast<std::size_t>(index), element_bytes(call));
}

}  // namespace

void ShmGroup::run(const CollectiveCall& call) {
  check_call(call, size_);
  std::size_t bytes = element_bytes(call);
  for (const std::int64_t extent : call.dims) bytes *= static_cast<std::size_t>(extent);
  begin(describe(call), hash_of(call), call.deadline);
  if (size_ == 1) return copy(output(call), input(call), bytes);
  if (check_) compare_descriptors();
  switch (call.kind) {
    case Collective::all_reduce: return all_reduce(call, bytes);
    case Collective::all_gather: return gather(call, bytes);
    case Collective::broadcast: return broadcast(call, bytes);
    case Collective::reduce: return reduce(call, bytes);
    case Collective::reduce_scatter: return reduce_scatter(call, bytes);
    case Collective::all_to_all: return all_to_all(call, bytes);
    case Collective::gather: return gather(call, bytes);
    case Collective::scatter: return scatter(call, bytes);
    case Collective::shift: return shift(call, bytes);
  }
  check(false, "every collective has a case");
}

// At least one phase, so that ranks also agree about calls without elements.
template <typename Give, typename Take>
void ShmGroup::in_pieces(std::size_t bytes, std::size_t piece, Give give, Take take) {
  std::size_t begin = 0;
  do {
    const std::size_t end = std::min(bytes, begin + piece);
    if (begin < end) give(begin, end, next_slot());
    synchronise();
    if (begin < end) take(begin, end);
    begin = end;
  } while (begin < bytes);
}

void ShmGroup::all_reduce(const CollectiveCall& call, std::size_t bytes) {
  if (bytes <= kAtOnceBytes) all_reduce_at_once(call, bytes);
  else all_reduce_by_parts(call, bytes);
}

void ShmGroup::all_reduce_at_once(const CollectiveCall& call, std::size_t bytes) {
  const Reducer reducer = find_reducer(call.dtype, *call.reduction);
  in_pieces(
      bytes, slot_bytes_, [&](std::size_t begin, std::size_t end, std::byte* to) { stream_copy(to, input(call) + begin, end - begin); },
      [&](std::size_t begin, std::size_t end) {
        const void* sources[kMaxWorld];
        for (int r = 0; r < size_; ++r) sources[r] = r == rank_ ? input(call) + begin : slot(r);
        reducer(output(call) + begin, sources, static_cast<std::size_t>(size_), (end - begin) / element_bytes(call));
      });
}

// Round k holds N pieces, one for each rank to reduce. In the phase that hands over the raw pieces of round k, the reduced ones of round
// k − 1 are handed over too. A slot holds N raw pieces and then the reduced one.
void ShmGroup::all_reduce_by_parts(const CollectiveCall& call, std::size_t bytes) {
  const Reducer reducer = find_reducer(call.dtype, *call.reduction);
  const auto n = static_cast<std::size_t>(size_), me = static_cast<std::size_t>(rank_);
  const std::size_t section = slot_bytes_ / (n + 1) / kLine * kLine;
  const std::size_t rounds = (bytes + n * section - 1) / (n * section);
  const std::size_t piece = round_to((bytes + n * rounds - 1) / (n * rounds), kLine);
  const auto offset = [&](std::size_t round, std::size_t r) { return std::min(bytes, (round * n + r) * piece); };
  const auto length = [&](std::size_t round, std::size_t r) { return std::min(bytes - offset(round, r), piece); };
  const auto hand_over = [&](std::size_t round) {
    for (std::size_t r = 0; r < n; ++r)
      if (r != me) stream_copy(next_slot() + r * section, input(call) + offset(round, r), length(round, r));
  };
  const auto reduce_own = [&](std::size_t round) {
    std::byte* to = output(call) + offset(round, me);
    // In blocks, so that what has been reduced is still in the nearest cache when it is handed over.
    for (std::size_t at = 0; at < length(round, me); at += kBlockBytes) {
      const std::size_t block = std::min(kBlockBytes, length(round, me) - at);
      const void* sources[kMaxWorld];
      for (std::size_t r = 0; r < n; ++r)
        sources[r] = (r == me ? input(call) + offset(round, me) : slot(static_cast<int>(r)) + me * section) + at;
      reducer(to + at, sources, n, block / element_bytes(call));
      stream_copy(next_slot() + n * section + at, to + at, block);
    }
  };
  const auto take = [&](std::size_t round) {
    for (std::size_t r = 0; r < n; ++r)
      if (r != me) copy(output(call) + offset(round, r), slot(static_cast<int>(r)) + n * section, length(round, r));
  };
  hand_over(0);
  for (std::size_t round = 0; round <= rounds; ++round) {
    synchronise();
    if (round < rounds) reduce_own(round);
    if (round > 0) take(round - 1);
    if (round + 1 < rounds) hand_over(round + 1);
  }
}

void ShmGroup::reduce(const CollectiveCall& call, std::size_t bytes) {
  const Reducer reducer = find_reducer(call.dtype, *call.reduction);
  in_pieces(
      bytes, slot_bytes_,
      [&](std::size_t begin, std::size_t end, std::byte* to) {
        if (rank_ != call.root) stream_copy(to, input(call) + begin, end - begin);
      },
      [&](std::size_t begin, std::size_t end) {
        if (rank_ != call.root) return;
        const void* sources[kMaxWorld];
        for (int r = 0; r < size_; ++r) sources[r] = r == rank_ ? input(call) + begin : slot(r);
        reducer(output(call) + begin, sources, static_cast<std::size_t>(size_), (end - begin) / element_bytes(call));
      });
  if (rank_ != call.root && bytes > 0) std::memset(output(call), 0, bytes);
}

void ShmGroup::reduce_scatter(const CollectiveCall& call, std::size_t bytes) {
  const Reducer reducer = find_reducer(call.dtype, *call.reduction);
  const std::size_t section = slot_bytes_ / static_cast<std::size_t>(size_) / kLine * kLine;
  in_pieces(
      bytes / static_cast<std::size_t>(size_), section,
      [&](std::size_t begin, std::size_t end, std::byte* to) {
        for (int r = 0; r < size_; ++r)
          pack(block_of_input(call, call.axis, size_, r), begin, end, to + static_cast<std::size_t>(r) * section);
      },
      [&](std::size_t begin, std::size_t end) {
        const void* sources[kMaxWorld];
        for (int r = 0; r < size_; ++r) sources[r] = slot(r) + static_cast<std::size_t>(rank_) * section;
        reducer(output(call) + begin, sources, static_cast<std::size_t>(size_), (end - begin) / element_bytes(call));
      });
}

// all_gather, or gather where only the root takes.
void ShmGroup::gather(const CollectiveCall& call, std::size_t bytes) {
  const bool takes = call.kind == Collective::all_gather || rank_ == call.root;
  in_pieces(
      bytes, slot_bytes_,
      [&](std::size_t begin, std::size_t end, std::byte* to) {
        if (call.kind == Collective::all_gather || rank_ != call.root) stream_copy(to, input(call) + begin, end - begin);
      },
      [&](std::size_t begin, std::size_t end) {
        for (int r = 0; takes && r < size_; ++r)
          unpack(r == rank_ ? input(call) + begin : slot(r), place_in_output(call, size_, r), begin, end);
      });
  if (!takes && bytes > 0) std::memset(output(call), 0, bytes * static_cast<std::size_t>(size_));
}

void ShmGroup::broadcast(const CollectiveCall& call, std::size_t bytes) {
  in_pieces(
      bytes, slot_bytes_,
      [&](std::size_t begin, std::size_t end, std::byte* to) {
        if (rank_ == call.root) stream_copy(to, input(call) + begin, end - begin);
      },
      [&](std::size_t begin, std::size_t end) {
        copy(output(call) + begin, rank_ == call.root ? input(call) + begin : slot(call.root), end - begin);
      });
}

void ShmGroup::scatter(const CollectiveCall& call, std::size_t bytes) {
  const std::size_t section = slot_bytes_ / static_cast<std::size_t>(size_) / kLine * kLine;
  in_pieces(
      bytes / static_cast<std::size_t>(size_), section,
      [&](std::size_t begin, std::size_t end, std::byte* to) {
        for (int r = 0; rank_ == call.root && r < size_; ++r)
          pack(block_of_input(call, call.axis, size_, r), begin, end, to + static_cast<std::size_t>(r) * section);
      },
      [&](std::size_t begin, std::size_t end) {
        std::memcpy(output(call) + begin, slot(call.root) + static_cast<std::size_t>(rank_) * section, end - begin);
      });
}

void ShmGroup::all_to_all(const CollectiveCall& call, std::size_t bytes) {
  const std::size_t section = slot_bytes_ / static_cast<std::size_t>(size_) / kLine * kLine;
  const Shape dims = collective_output_dims(call, size_);
  in_pieces(
      bytes / static_cast<std::size_t>(size_), section,
      [&](std::size_t begin, std::size_t end, std::byte* to) {
        for (int r = 0; r < size_; ++r)
          pack(block_of_input(call, call.split_axis, size_, r), begin, end, to + static_cast<std::size_t>(r) * section);
      },
      [&](std::size_t begin, std::size_t end) {
        for (int r = 0; r < size_; ++r)
          unpack(slot(r) + static_cast<std::size_t>(rank_) * section,
                 block_of(output(call), dims, call.concat_axis, static_cast<std::size_t>(size_), static_cast<std::size_t>(r),
                          element_bytes(call)),
                 begin, end);
      });
}

void ShmGroup::shift(const CollectiveCall& call, std::size_t bytes) {
  const int from = ((rank_ - call.shift % size_) % size_ + size_) % size_;
  in_pieces(
      bytes, slot_bytes_, [&](std::size_t begin, std::size_t end, std::byte* to) { stream_copy(to, input(call) + begin, end - begin); },
      [&](std::size_t begin, std::size_t end) { std::memcpy(output(call) + begin, slot(from), end - begin); });
}

}  // namespace tandem::shm
