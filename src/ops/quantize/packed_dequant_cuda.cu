// Codes become 16-bit floats in registers without rounding, so that scales, in f32, follow the sums.
#include "device/cuda/dependent.cuh"
#include "ops/matmul/packed_rows_cuda.cuh"
#include "ops/quantize/packed_dequant_cuda.h"

namespace tandem::cuda {
namespace {

template <typename T>
__device__ __forceinline__ unsigned difference(unsigned pair, unsigned less) {
  std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162> a, b;
  memcpy(&a, &pair, sizeof a);
  memcpy(&b, &less, sizeof b);
  a = __hsub2(a, b);
  memcpy(&pair, &a, sizeof a);
  return pair;
}

// Integers of 8 bits: in the mantissa of 2^10, or for bf16, whose mantissa is too short, in that of f32's 2^23.
template <typename T_>
struct Bytes {
  using T = T_;
  static constexpr int kUnits = 2, kWords = 1;

  static __device__ __forceinline__ void pairs_of(const PackedWords& word, int unit, int offset, unsigned (&pairs)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const unsigned codes = word.at[2 * unit + i / 2];
      if constexpr (std::is_same_v<T, __half>) {
        pairs[i] = difference<T>(__byte_perm(codes, 0x64646464u, i % 2 == 0 ? 0x4140 : 0x4342), (0x6400u + offset) * 0x10001u);
      } else {
        const float least = static_cast<float>(8388608 + offset);
        const float first = __uint_as_float(__byte_perm(codes, 0x4b000000u, 0x7440u | (i % 2 * 2))) - least;
        const float second = __uint_as_float(__byte_perm(codes, 0x4b000000u, 0x7441u | (i % 2 * 2))) - least;
        pairs[i] = __byte_perm(__float_as_uint(first), __float_as_uint(second), 0x7632);
      }
    }
  }
};

// Integers of 4 bits: in the mantissa of 2^10, of bf16's 2^7.
template <typename T_>
struct Nibbles {
  using T = T_;
  static constexpr int kUnits = 4, kWords = 1;

  static __device__ __forceinline__ void pairs_of(const PackedWords& word, int unit, int offset, unsigned (&pairs)[4]) {
    constexpr unsigned kPower = std::is_same_v<T, __half> ? 0x6400 : 0x4300;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      pairs[i] = difference<T>((word.at[unit] >> (4 * i) & 0x000f000fu) | kPower * 0x10001u, (kPower + offset) * 0x10001u);
  }
};

// f8e4m3.
template <typename T_>
struct SmallFloats {
  using T = T_;
  static constexpr int kUnits = 2, kWords = 1;

  static __device__ __forceinline__ void pairs_of(const PackedWords& word, int unit, int, unsigned (&pairs)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto codes = static_cast<__nv_fp8x2_storage_t>(word.at[2 * unit + i / 2] >> (i % 2 * 16));
      const __half2_raw raw = __nv_cvt_fp8x2_to_halfraw2(codes, __NV_E4M3);
      if constexpr (std::is_same_v<T, __half>) {
        pairs[i] = raw.x | static_cast<unsigned>(raw.y) << 16;
      } else {
        const float2 both = __half22float2(__half2(raw));
        pairs[i] = pack<T>(both.x, both.y);
      }
    }
  }
};

// Calls `work` with a format, and groups and tiles as constants.
template <typename Work>
void with_kernel(const PackedDequant& form, const Work& work) {
  const auto with_tiles = [&](auto format, auto groups) {
    if (form.tiles == 4) work(format, groups, std::integral_constant<int, 4>());
    else if (form.tiles == 8) work(format, groups, std::integral_constant<int, 8>());
    else work(format, groups, std::integral_constant < int, decltype(groups)::value == 0 ? 16 : 12 > ());
  };
  const auto with_groups = [&](auto format) {
    if (form.groups == 0) return with_tiles(format, std::integral_constant<int, 0>());
    if (form.groups == 1) return with_tiles(format, std::integral_constant<int, 1>());
    if constexpr (decltype(format)::kUnits == 4)
      if (form.groups == 4) return with_tiles(format, std::integral_constant<int, 4>());
    with_tiles(format, std::integral_constant<int, 2>());
  };
  const auto with_codes = [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (form.codes == DType::f8e4m3) with_groups(SmallFloats<T>());
    else if (form.codes == DType::i4 || form.codes == DType::u4) with_groups(Nibbles<T>());
    else with_groups(Bytes<T>());
  };
  if (form.type == DType::f16) with_codes(Tag<__half>());
  else with_codes(Tag<__nv_bfloat16>());
}

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) pack_scales(const ScalesToPack s, std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const std::int64_t group = i / kScaleColumns % s.groups, column = i / kScaleColumns / s.groups * kScaleColumns + i % kScaleColumns;
  s.to[i] = group < s.given && column < s.n ? float_at(s.type, s.scale, group * s.row + column * s.column) : 0.0f;
}

}  // namespace

cudaError_t prepare_packed_dequant(const PackedDequant& form) {
  cudaError_t status = cudaSuccess;
  with_kernel(form, [&](auto format, auto groups, auto tiles) { status = allow_packed_rows<decltype(format), groups, tiles>(); });
  return status;
}

void launch_packed_dequant(const PackedDequant& form, const PackedRows& p, const Start& start) {
  with_kernel(form, [&](auto format, auto groups, auto tiles) { start_packed_rows<decltype(format), groups, tiles>(p, start); });
}

void launch_pack_scales(const ScalesToPack& s, cudaStream_t stream) {
  const std::int64_t count = (s.n + kScaleColumns - 1) / kScaleColumns * s.groups * kScaleColumns;
  start_kernel(stream, pack_scales, grid_for(count, kThreads), kThreads, 0, s, count);
}

}  // namespace tandem::cuda
