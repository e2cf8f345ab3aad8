// What each collective is made of: words that carry floats, moves and reductions of anything else.
#include <algorithm>
#include <limits>

#include "comm/peer/peer_group.h"
#include "comm/shm/rows.h"
#include "core/check.h"
#include "device/cuda/runtime.h"

namespace tandem::peer {
namespace {

// Seconds that sending a part on takes more than sending everything at once, and the bytes per second that a GPU pushes: where parts pay.
constexpr double kSecondTrip = 2e-6, kPushed = 360e9;
// The same where rows are normed too, which begins after the second trip; and from where on one kernel by parts takes less than the
// all-reduce by parts and a norm after it, each of which fills the GPU better.
constexpr double kThirdTrip = 3e-6, kOneKernel = 5.5e-6;
// Up to here integers are reduced by everyone.
constexpr std::size_t kAnyAtOnce = 64 << 10;
// Shifts go on beside the attention to what came before, which needs the other multiprocessors.
constexpr int kShiftBlocks = 24;

Fold fold_of(Reduction reduction) {
  switch (reduction) {
    case Reduction::sum: return Fold::sum;
    case Reduction::prod: return Fold::prod;
    case Reduction::min: return Fold::min;
    case Reduction::max: return Fold::max;
    case Reduction::avg: return Fold::avg;
  }
  return Fold::sum;
}

std::size_t element_bytes(const CollectiveCall& call) { return static_cast<std::size_t>(bits(call.dtype)) / 8; }
char* input(const CollectiveCall& call) { return static_cast<char*>(const_cast<void*>(call.in)); }
char* output(const CollectiveCall& call) { return static_cast<char*>(call.out); }
cudaStream_t stream_of(const CollectiveCall& call) { return static_cast<cudaStream_t>(call.stream); }

Rows whole(char* data, std::size_t bytes) { return {data, static_cast<std::int64_t>(bytes), static_cast<std::int64_t>(bytes), 1}; }

// Part `index` of `parts` equal parts along an axis of a tensor at `data`.
Rows block_of(char* data, std::span<const std::int64_t> dims, int axis, int parts, int index, std::size_t element) {
  const shm::Rows<char> rows = shm::block_of(data, dims, axis, static_cast<std::size_t>(parts), static_cast<std::size_t>(index), element);
  return {rows.data, static_cast<std::int64_t>(rows.row), static_cast<std::int64_t>(rows.stride), static_cast<std::int64_t>(rows.count)};
}

// Equal parts of a flat array, of whole 16 bytes but for the end.
Rows flat_part(char* data, std::size_t bytes, int parts, int index) {
  const std::size_t part = ((bytes + static_cast<std::size_t>(parts) - 1) / static_cast<std::size_t>(parts) + kWord - 1) / kWord * kWord;
  const std::size_t begin = std::min(bytes, part * static_cast<std::size_t>(index));
  return whole(data + begin, std::min(bytes - begin, part));
}

// Seconds of sending that are saved where each rank reduces a part and sends it on.
double saved_by_parts(double bytes, int size) {
  const double peers = size - 1;
  return bytes * (peers - 2 * peers / size) / kPushed;
}

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % kWord == 0; }

}  // namespace

std::optional<std::string> PeerGroup::refusal(const CollectiveCall&) const { return std::nullopt; }

void PeerGroup::enqueue(const CollectiveCall& call) {
  check_call(call, size());
  throw_if_failed();
  std::size_t bytes = element_bytes(call);
  for (const std::int64_t extent : call.dims) bytes *= static_cast<std::size_t>(extent);
  if (bytes == 0) return;
  if (size() == 1) {
    if (call.in != call.out) cuda::check(cudaMemcpyAsync(call.out, call.in, bytes, cudaMemcpyDeviceToDevice, stream_of(call)), "copying");
    return;
  }
  const View view = this->view(call.deadline ? call.deadline->limit() : options_.limit);
  switch (call.kind) {
    case Collective::all_reduce: all_reduce(view, call, bytes); break;
    case Collective::reduce: reduce_to(view, call, bytes); break;
    case Collective::reduce_scatter: reduce_scatter(view, call, bytes); break;
    case Collective::all_gather:
    case Collective::gather: gather(view, call, bytes); break;
    case Collective::broadcast:
    case Collective::scatter: from_root(view, call, bytes); break;
    case Collective::all_to_all: all_to_all(view, call, bytes); break;
    case Collective::shift: shift(view, call, bytes); break;
  }
  cuda::check_launch("a collective");
}

bool PeerGroup::can_reduce_and_norm(DType dtype, std::int64_t length) const { return peer::can_reduce_and_norm(dtype, length, size()); }

bool PeerGroup::one_kernel_pays(std::int64_t bytes) const {
  const double saved = saved_by_parts(static_cast<double>(bytes), size());
  return saved <= kSecondTrip || saved > kOneKernel;
}

void PeerGroup::reduce_and_norm(ReduceAndNorm work, void* stream, std::chrono::nanoseconds limit) {
  throw_if_failed();
  tandem::check(can_reduce_and_norm(work.dtype, work.length), "rows are of whole words, and not too long");
  work.blocks = blocks_;
  const void* const addresses[] = {work.in, work.residual, work.offset, work.scale, work.bias, work.y, work.sum};
  work.aligned = std::ranges::all_of(addresses, aligned);
  const View view = this->view(limit);
  const std::int64_t row = work.length * bits(work.dtype) / 8, rows = work.rows;
  const bool parts = saved_by_parts(static_cast<double>(rows * row), size()) > kThirdTrip;
  const std::int64_t most = parts ? most_rows_by_parts(work, size()) : most_rows_at_once(work, size());
  for (std::int64_t at = 0; at < rows; at += most) {
    work.rows = std::min(most, rows - at);
    if (parts) launch_norm_by_parts(view, work, static_cast<cudaStream_t>(stream));
    else launch_norm_at_once(view, work, static_cast<cudaStream_t>(stream));
    for (const void** address : {&work.in, &work.residual}) *address = static_cast<const char*>(*address) + most * row;
    for (void** address : {&work.y, &work.sum}) *address = static_cast<char*>(*address) + most * row;
  }
  cuda::check_launch("all-reduce and norm");
}

void PeerGroup::all_reduce(const View& view, const CollectiveCall& call, std::size_t bytes) {
  const bool words = call.dtype == DType::f32 || call.dtype == DType::f16 || call.dtype == DType::bf16;
  if (words) all_reduce_words(view, call);
  else all_reduce_any(view, call, bytes);
}

void PeerGroup::all_reduce_words(const View& view, const CollectiveCall& call) {
  const auto element = static_cast<std::int64_t>(element_bytes(call));
  std::int64_t elements = 1;
  for (const std::int64_t extent : call.dims) elements *= extent;
  const bool by_parts = saved_by_parts(static_cast<double>(elements * element), size()) > kSecondTrip;
  const std::int64_t most = by_parts ? most_by_parts(call.dtype, size(), blocks_) : most_at_once(call.dtype, size(), blocks_);
  for (std::int64_t at = 0; at < elements; at += most) {
    const std::int64_t count = std::min(most, elements - at);
    ReduceWords work = {{input(call) + at * element, output(call) + at * element, count, false},
                        call.dtype,
                        fold_of(*call.reduction),
                        blocks_,
                        options_.early};
    work.arrays.whole = aligned(work.arrays.in) && aligned(work.arrays.out) && count * element % static_cast<std::int64_t>(kWord) == 0;
    if (by_parts) launch_by_parts(view, work, stream_of(call));
    else launch_at_once(view, work, stream_of(call));
  }
}

// Small: everyone reduces everything. Else each rank reduces a part of the flat array, and the parts are gathered.
void PeerGroup::all_reduce_any(const View& view, const CollectiveCall& call, std::size_t bytes) {
  Reduce work{};
  work.dtype = call.dtype;
  work.fold = fold_of(*call.reduction);
  work.blocks = blocks_;
  if (bytes <= kAnyAtOnce) {
    for (int r = 0; r < size(); ++r) work.in[r] = whole(input(call), bytes);
    work.out = output(call);
    work.out_bytes = work.longest = static_cast<std::int64_t>(bytes);
    return launch_reduce(view, work, stream_of(call));
  }
  for (int r = 0; r < size(); ++r) work.in[r] = flat_part(input(call), bytes, size(), r);
  const Rows mine = flat_part(output(call), bytes, size(), rank());
  work.out = mine.data;
  work.out_bytes = mine.bytes();
  work.longest = flat_part(nullptr, bytes, size(), 0).bytes();
  launch_reduce(view, work, stream_of(call));
  Move move{};
  move.longest = work.longest;
  move.blocks = blocks_;
  for (int r = 0; r < size(); ++r) {
    move.in[r] = mine;
    move.out[r] = flat_part(output(call), bytes, size(), r);
  }
  launch_move(view, move, stream_of(call));
}

void PeerGroup::reduce_to(const View& view, const CollectiveCall& call, std::size_t bytes) {
  Reduce work{};
  work.dtype = call.dtype;
  work.fold = fold_of(*call.reduction);
  work.blocks = blocks_;
  work.in[call.root] = whole(input(call), bytes);
  work.longest = static_cast<std::int64_t>(bytes);
  const bool is_root = rank() == call.root;
  if (is_root) {
    work.out = output(call);
    work.out_bytes = work.longest;
  }
  launch_reduce(view, work, stream_of(call));
  if (!is_root) cuda::check(cudaMemsetAsync(call.out, 0, bytes, stream_of(call)), "clearing an output");
}

void PeerGroup::reduce_scatter(const View& view, const CollectiveCall& call, std::size_t bytes) {
  Reduce work{};
  work.dtype = call.dtype;
  work.fold = fold_of(*call.reduction);
  work.blocks = blocks_;
  for (int r = 0; r < size(); ++r) work.in[r] = block_of(input(call), call.dims, call.axis, size(), r, element_bytes(call));
  work.out = output(call);
  work.out_bytes = work.longest = static_cast<std::int64_t>(bytes) / size();
  launch_reduce(view, work, stream_of(call));
}

void PeerGroup::gather(const View& view, const CollectiveCall& call, std::size_t bytes) {
  const bool all = call.kind == Collective::all_gather, takes = all || rank() == call.root;
  Shape joined(call.dims.begin(), call.dims.end());
  joined[static_cast<std::size_t>(call.axis)] *= size();
  Move work{};
  work.longest = static_cast<std::int64_t>(bytes);
  work.blocks = blocks_;
  for (int r = 0; r < size(); ++r) {
    if (all || r == call.root) work.in[r] = whole(input(call), bytes);
    if (takes) work.out[r] = block_of(output(call), joined, call.axis, size(), r, element_bytes(call));
  }
  launch_move(view, work, stream_of(call));
  if (!takes) cuda::check(cudaMemsetAsync(call.out, 0, bytes * static_cast<std::size_t>(size()), stream_of(call)), "clearing an output");
}

void PeerGroup::all_to_all(const View& view, const CollectiveCall& call, std::size_t bytes) {
  const Shape joined = collective_output_dims(call, size());
  Move work{};
  work.longest = static_cast<std::int64_t>(bytes) / size();
  work.blocks = blocks_;
  for (int r = 0; r < size(); ++r) {
    work.in[r] = block_of(input(call), call.dims, call.split_axis, size(), r, element_bytes(call));
    work.out[r] = block_of(output(call), joined, call.concat_axis, size(), r, element_bytes(call));
  }
  launch_move(view, work, stream_of(call));
}

void PeerGroup::from_root(const View& view, const CollectiveCall& call, std::size_t bytes) {
  const bool scatters = call.kind == Collective::scatter;
  const std::size_t got = scatters ? bytes / static_cast<std::size_t>(size()) : bytes;
  Move work{};
  work.longest = static_cast<std::int64_t>(got);
  work.blocks = blocks_;
  if (rank() == call.root)
    for (int r = 0; r < size(); ++r)
      work.in[r] = scatters ? block_of(input(call), call.dims, call.axis, size(), r, element_bytes(call)) : whole(input(call), bytes);
  work.out[call.root] = whole(output(call), got);
  launch_move(view, work, stream_of(call));
}

void PeerGroup::shift(const View& view, const CollectiveCall& call, std::size_t bytes) {
  const auto around = [&](int r) { return (r % size() + size()) % size(); };
  Move work{};
  work.longest = static_cast<std::int64_t>(bytes);
  work.blocks = std::min(blocks_, kShiftBlocks);
  work.in[around(rank() + call.shift)] = whole(input(call), bytes);
  work.out[around(rank() - call.shift)] = whole(output(call), bytes);
  launch_move(view, work, stream_of(call));
}

}  // namespace tandem::peer
