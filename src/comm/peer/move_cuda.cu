// Moves of any bytes, and reductions of what no word can be kept free of: pushed in pieces, each announced by a counter (see layout.h).
#include "comm/peer/exchange.cuh"
#include "comm/peer/launch.h"
#include "comm/peer/spinning.h"
#include "device/cuda/dependent.cuh"
#include "device/cuda/registers.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <algorithm>

#include "tandem/error.h"

namespace tandem::peer {
namespace {

// Bytes [begin, end) of a stream of rows, in units of U, counted from `begin`.
template <typename U>
struct Units {
  char* data;
  std::int64_t row, stride;  // row 0: contiguous
  __device__ __forceinline__ U* at(std::int64_t byte) const {
    if (row == 0) return reinterpret_cast<U*>(data + byte);
    return reinterpret_cast<U*>(data + byte / row * stride + byte % row);
  }
};
template <typename U>
__device__ __forceinline__ Units<U> units_of(const Rows& rows) {
  return {rows.data, rows.count <= 1 || rows.row == rows.stride ? 0 : rows.row, rows.stride};
}

// The part of a stream that a lane moves in one step.
struct Piece {
  std::int64_t begin;
  std::int64_t bytes;                          // of a stream that is as long as the longest
  __device__ int of(const Rows& rows) const {  // that this stream has of it
    const std::int64_t all = rows.row * rows.count;
    return static_cast<int>(all <= begin ? 0 : all - begin < bytes ? all - begin : bytes);
  }
};

template <typename U>
__device__ __forceinline__ U load_past_cache(const U* at) {
  if constexpr (sizeof(U) == 16) return load_word(at);
  else return *reinterpret_cast<const volatile U*>(at);
}

template <typename U>
__device__ void push(const View& view, const Rows& rows, const Piece& piece, int peer, char* slot) {
  const Units<U> from = units_of<U>(rows);
  const int count = piece.of(rows) / static_cast<int>(sizeof(U));
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads)
    reinterpret_cast<U*>(slot)[i] = *from.at(piece.begin + static_cast<std::int64_t>(i) * static_cast<std::int64_t>(sizeof(U)));
}

template <typename U>
__device__ void take(const Rows& rows, const Piece& piece, const char* slot) {
  const Units<U> to = units_of<U>(rows);
  const int count = piece.of(rows) / static_cast<int>(sizeof(U));
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads)
    *to.at(piece.begin + static_cast<std::int64_t>(i) * static_cast<std::int64_t>(sizeof(U))) =
        load_past_cache(reinterpret_cast<const U*>(slot) + i);
}

// Steps of a lane: in each, every rank sends its piece to the others, waits for theirs and gives them to `take(piece, slot)`, the memory of
// this rank where rank p's piece lies at p·room.
template <typename Push, typename Take>
__device__ void in_steps(const View& view, std::int64_t per_lane, std::int64_t longest, const Push& push_piece, const Take& take_pieces) {
  const int lane = static_cast<int>(blockIdx.x);
  const std::int64_t room =
      static_cast<std::int64_t>(kDataLane / view.size) / static_cast<std::int64_t>(kWord) * static_cast<std::int64_t>(kWord);
  const std::int64_t begin = lane * per_lane, end = min(longest, begin + per_lane);
  Turn turn = begin_turn(view);
  if (turn.ended) return;
  Wait wait;
  std::uint32_t step = turn.lane.arrivals;
  for (std::int64_t at = begin; at < end; at += room) {
    ++step;
    const Piece piece = {at, min(room, end - at)};
    for (int k = 1; k < view.size; ++k) {
      const int peer = view.rank + k < view.size ? view.rank + k : view.rank + k - view.size;
      push_piece(piece, peer, data_lane(view, peer, lane, step & 1) + view.rank * room);
    }
    signal_peers(view, lane, step);
    if (at == begin) tell_begun(view, turn.begun);
    if (!await_peers(view, lane, step, wait)) return;
    take_pieces(piece, data_lane(view, view.rank, lane, step & 1), room);
  }
  if (threadIdx.x == 0) view.state->lanes[lane].arrivals = step;
}

template <typename U>
__global__ void __launch_bounds__(kThreads, cuda::kRoomFrom100)
    move(const __grid_constant__ View view, const __grid_constant__ Move m, std::int64_t per_lane) {
  in_steps(
      view, per_lane, m.longest, [&](const Piece& piece, int peer, char* slot) { push<U>(view, m.in[peer], piece, peer, slot); },
      [&](const Piece& piece, const char* slot, std::int64_t room) {
        for (int p = 0; p < view.size; ++p)
          if (p != view.rank) take<U>(m.out[p], piece, slot + p * room);
        const Units<U> from = units_of<U>(m.in[view.rank]), to = units_of<U>(m.out[view.rank]);
        const int count = min(piece.of(m.in[view.rank]), piece.of(m.out[view.rank])) / static_cast<int>(sizeof(U));
        if (m.in[view.rank].data == m.out[view.rank].data) return;
        for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
          const std::int64_t byte = piece.begin + static_cast<std::int64_t>(i) * static_cast<std::int64_t>(sizeof(U));
          *to.at(byte) = *from.at(byte);
        }
      });
}

// How an element is computed with, as comm/reduce.cpp has it.
template <typename T>
struct Native {
  using Storage = T;
  using Wide = T;
  __device__ static T load(T x) { return x; }
  __device__ static T store(T x) { return x; }
};
struct Half {
  using Storage = __half;
  using Wide = float;
  __device__ static float load(__half x) { return __half2float(x); }
  __device__ static __half store(float x) { return __float2half_rn(x); }
};
struct BFloat16 {
  using Storage = __nv_bfloat16;
  using Wide = float;
  __device__ static float load(__nv_bfloat16 x) { return __bfloat162float(x); }
  __device__ static __nv_bfloat16 store(float x) { return __float2bfloat16_rn(x); }
};
template <__nv_fp8_interpretation_t kKind>
struct Float8 {
  using Storage = std::uint8_t;
  using Wide = float;
  __device__ static float load(std::uint8_t x) { return __half2float(__half(__nv_cvt_fp8_to_halfraw(x, kKind))); }
  __device__ static std::uint8_t store(float x) { return __nv_cvt_float_to_fp8(x, __NV_NOSAT, kKind); }
};

template <typename W>
__device__ __forceinline__ W combine(Fold fold, W a, W b) {
  if (fold == Fold::max) return (a > b) || (a != a) ? a : b;
  if (fold == Fold::min) return (a < b) || (a != a) ? a : b;
  if constexpr (std::is_floating_point_v<W>) {
    return fold == Fold::prod ? a * b : a + b;
  } else {
    using U = std::conditional_t<(sizeof(W) < 8), std::uint32_t, std::uint64_t>;  // wraps, and is not promoted to int
    return static_cast<W>(fold == Fold::prod ? static_cast<U>(a) * static_cast<U>(b) : static_cast<U>(a) + static_cast<U>(b));
  }
}

template <typename W>
__device__ __forceinline__ W finish(Fold fold, W sum, int size) {
  if (fold != Fold::avg) return sum;
  if constexpr (std::is_floating_point_v<W>) return sum / static_cast<W>(size);
  else if constexpr (std::is_signed_v<W>) return static_cast<W>(sum / static_cast<std::int64_t>(size));
  else return static_cast<W>(sum / static_cast<std::uint64_t>(size));
}

template <typename Codec, typename U>
__global__ void __launch_bounds__(kThreads, cuda::kRoomFrom100)
    reduce(const __grid_constant__ View view, const __grid_constant__ Reduce r, std::int64_t per_lane) {
  using S = typename Codec::Storage;
  const Rows out = {r.out, r.out_bytes, r.out_bytes, 1};
  in_steps(
      view, per_lane, r.longest, [&](const Piece& piece, int peer, char* slot) { push<U>(view, r.in[peer], piece, peer, slot); },
      [&](const Piece& piece, const char* slot, std::int64_t room) {
        const Units<S> own = units_of<S>(r.in[view.rank]), to = units_of<S>(out);
        const int count = piece.of(out) / static_cast<int>(sizeof(S));
        for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
          const std::int64_t byte = piece.begin + static_cast<std::int64_t>(i) * static_cast<std::int64_t>(sizeof(S));
          const auto value = [&](int p) {
            if (p == view.rank) return Codec::load(*own.at(byte));
            S element;  // bytes as they came
            if constexpr (sizeof(S) == 1) {
              const auto raw = load_past_cache(reinterpret_cast<const std::uint8_t*>(slot + p * room) + i);
              memcpy(&element, &raw, 1);
            } else if constexpr (sizeof(S) == 2) {
              const auto raw = load_past_cache(reinterpret_cast<const std::uint16_t*>(slot + p * room) + i);
              memcpy(&element, &raw, 2);
            } else if constexpr (sizeof(S) == 4) {
              const auto raw = load_past_cache(reinterpret_cast<const std::uint32_t*>(slot + p * room) + i);
              memcpy(&element, &raw, 4);
            } else {
              const auto raw = load_past_cache(reinterpret_cast<const std::uint64_t*>(slot + p * room) + i);
              memcpy(&element, &raw, 8);
            }
            return Codec::load(element);
          };
          typename Codec::Wide sum = value(0);
          for (int p = 1; p < view.size; ++p) sum = combine(r.fold, sum, value(p));
          *to.at(byte) = Codec::store(finish(r.fold, sum, view.size));
        }
      });
}

// The largest unit that an address and the strides allow.
std::int64_t common_unit(const Rows& rows, std::int64_t unit) {
  if (rows.row * rows.count == 0) return unit;
  while (unit > 1 && (reinterpret_cast<std::uintptr_t>(rows.data) % static_cast<std::uintptr_t>(unit) != 0 || rows.row % unit != 0 ||
                      (rows.count > 1 && rows.stride % unit != 0)))
    unit /= 2;
  return unit;
}

struct Lanes {
  int count;
  std::int64_t bytes;  // of each
};
Lanes lanes_of(std::int64_t longest, int blocks) {
  constexpr std::int64_t kLeast = 4096;
  const auto most = static_cast<std::int64_t>(std::min(blocks, kLanes));
  std::int64_t per_lane = std::max(kLeast, (longest + most - 1) / most);
  per_lane = (per_lane + 15) / 16 * 16;
  return {static_cast<int>((longest + per_lane - 1) / per_lane), per_lane};
}

template <typename Kernel, typename Work>
void start_lanes(cudaStream_t stream, const Lanes& lanes, Kernel* kernel, const View& view, const Work& work) {
  cuda::start_kernel(stream, kernel, dim3(static_cast<unsigned>(lanes.count)), dim3(kThreads), 0, view, work, lanes.bytes);
}

template <typename Codec>
void launch_reduce_of(const View& view, const Reduce& work, cudaStream_t stream) {
  using S = typename Codec::Storage;
  std::int64_t unit = 16;
  for (int p = 0; p < view.size; ++p) unit = common_unit(work.in[p], unit);
  const Lanes lanes = lanes_of(work.longest, work.blocks);
  using Plain = std::conditional_t<
      sizeof(S) == 1, std::uint8_t,
      std::conditional_t<sizeof(S) == 2, std::uint16_t, std::conditional_t<sizeof(S) == 4, std::uint32_t, std::uint64_t>>>;
  if (unit == 16) start_lanes(stream, lanes, spinning<reduce<Codec, uint4>>(), view, work);
  else start_lanes(stream, lanes, spinning<reduce<Codec, Plain>>(), view, work);
}

}  // namespace

void launch_move(const View& view, const Move& work, cudaStream_t stream) {
  std::int64_t unit = 16;
  for (int p = 0; p < view.size; ++p) unit = common_unit(work.out[p], common_unit(work.in[p], unit));
  const Lanes lanes = lanes_of(work.longest, work.blocks);
  switch (unit) {
    case 16: return start_lanes(stream, lanes, spinning<move<uint4>>(), view, work);
    case 8: return start_lanes(stream, lanes, spinning<move<std::uint64_t>>(), view, work);
    case 4: return start_lanes(stream, lanes, spinning<move<std::uint32_t>>(), view, work);
    case 2: return start_lanes(stream, lanes, spinning<move<std::uint16_t>>(), view, work);
    default: return start_lanes(stream, lanes, spinning<move<std::uint8_t>>(), view, work);
  }
}

void launch_reduce(const View& view, const Reduce& work, cudaStream_t stream) {
  switch (work.dtype) {
    case DType::f32: return launch_reduce_of<Native<float>>(view, work, stream);
    case DType::f64: return launch_reduce_of<Native<double>>(view, work, stream);
    case DType::f16: return launch_reduce_of<Half>(view, work, stream);
    case DType::bf16: return launch_reduce_of<BFloat16>(view, work, stream);
    case DType::f8e4m3: return launch_reduce_of<Float8<__NV_E4M3>>(view, work, stream);
    case DType::f8e5m2: return launch_reduce_of<Float8<__NV_E5M2>>(view, work, stream);
    case DType::i8: return launch_reduce_of<Native<std::int8_t>>(view, work, stream);
    case DType::u8: return launch_reduce_of<Native<std::uint8_t>>(view, work, stream);
    case DType::i16: return launch_reduce_of<Native<std::int16_t>>(view, work, stream);
    case DType::u16: return launch_reduce_of<Native<std::uint16_t>>(view, work, stream);
    case DType::i32: return launch_reduce_of<Native<std::int32_t>>(view, work, stream);
    case DType::u32: return launch_reduce_of<Native<std::uint32_t>>(view, work, stream);
    case DType::i64: return launch_reduce_of<Native<std::int64_t>>(view, work, stream);
    case DType::u64: return launch_reduce_of<Native<std::uint64_t>>(view, work, stream);
    default: throw Error(ErrorCode::internal, "nothing reduces " + std::string(to_string(work.dtype)));
  }
}

}  // namespace tandem::peer
