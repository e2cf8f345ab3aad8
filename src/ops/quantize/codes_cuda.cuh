// Quantised numbers in device code: what codes stand for, one at a time and by words. For *_cuda.cu files.
#pragma once

#include "ops/types_cuda.cuh"

namespace tandem::cuda {

// Types of codes. Of 4-bit ones a byte holds two, the first in its low half.
struct I4x2 {
  std::uint8_t bits;
};
struct U4x2 {
  std::uint8_t bits;
};
template <typename T>
inline constexpr bool kIsPair = std::is_same_v<T, I4x2> || std::is_same_v<T, U4x2>;
template <typename T>
inline constexpr int kPerByte = kIsPair<T> ? 2 : 1;

// Calls `work(Tag<T>())` with the type of codes of 4 or 8 bits.
template <typename Work>
void with_code_type(DType dtype, const Work& work) {
  switch (dtype) {
    case DType::i8: return work(Tag<std::int8_t>());
    case DType::u8: return work(Tag<std::uint8_t>());
    case DType::f8e4m3: return work(Tag<__nv_fp8_e4m3>());
    case DType::f8e5m2: return work(Tag<__nv_fp8_e5m2>());
    case DType::i4: return work(Tag<I4x2>());
    case DType::u4: return work(Tag<U4x2>());
    default: throw Error(ErrorCode::internal, "no kernel for codes of " + std::string(to_string(dtype)));
  }
}

// Element `i` of a tensor of codes.
template <typename T>
__device__ __forceinline__ float code_at(const void* codes, std::int64_t i) {
  if constexpr (kIsPair<T>) {
    const unsigned nibble = static_cast<const std::uint8_t*>(codes)[i / 2] >> (i % 2 * 4) & 15u;
    return std::is_same_v<T, I4x2> ? static_cast<float>(static_cast<int>(nibble ^ 8u) - 8) : static_cast<float>(nibble);
  } else {
    return static_cast<float>(static_cast<const T*>(codes)[i]);
  }
}

// Element `i` of f32, f16 or bf16; the type is the same for all threads.
__device__ __forceinline__ float float_at(DType type, const void* floats, std::int64_t i) {
  if (type == DType::f16) return to_float(static_cast<const __half*>(floats)[i]);
  if (type == DType::bf16) return to_float(static_cast<const __nv_bfloat16*>(floats)[i]);
  return static_cast<const float*>(floats)[i];
}

// The codes of a word of 4 bytes. A small integer in the mantissa of 2^23 is a float but for an addend.
template <typename T>
__device__ __forceinline__ void decode(std::uint32_t word, float (&out)[4 * kPerByte<T>]) {
  constexpr float kAddend = 8388608.0f;
  if constexpr (kIsPair<T>) {
    constexpr bool kSigned = std::is_same_v<T, I4x2>;
    if constexpr (kSigned) word ^= 0x88888888u;
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = __uint_as_float((word >> (4 * i) & 15u) | 0x4b000000u) - (kSigned ? kAddend + 8 : kAddend);
  } else if constexpr (std::is_integral_v<T>) {
    constexpr bool kSigned = std::is_signed_v<T>;
    if constexpr (kSigned) word ^= 0x80808080u;
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7440u | i)) - (kSigned ? kAddend + 128 : kAddend);
  } else {
    constexpr __nv_fp8_interpretation_t kKind = std::is_same_v<T, __nv_fp8_e4m3> ? __NV_E4M3 : __NV_E5M2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const __half2_raw pair = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(word >> (16 * i)), kKind);
      const float2 both = __half22float2(__half2(pair));
      out[2 * i] = both.x, out[2 * i + 1] = both.y;
    }
  }
}

}  // namespace tandem::cuda
