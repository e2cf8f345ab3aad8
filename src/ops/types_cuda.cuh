// Element types in device code: conversions to float and back, and calling a template for a DType. For *_cuda.cu files, which include no
// header that formats text: nvcc does not compile it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>
#include <string>

#include "tandem/error.h"
#include "tandem/types.h"

namespace tandem::cuda {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// 16 bytes, or what fewer elements take, moved at once.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Vector {
  T at[kCount];
};

template <typename T>
struct Tag {
  using type = T;
};

// Calls `work(Tag<T>())` with the device type of f32, f16 or bf16.
template <typename Work>
void with_float_type(DType dtype, const Work& work) {
  switch (dtype) {
    case DType::f32: return work(Tag<float>());
    case DType::f16: return work(Tag<__half>());
    case DType::bf16: return work(Tag<__nv_bfloat16>());
    default: throw Error(ErrorCode::internal, "no kernel for " + std::string(to_string(dtype)));
  }
}

inline bool is_kernel_float(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

// Calls `work(Tag<U>())` with an unsigned integer of that many bytes: for kernels that move elements without looking at them.
template <typename Work>
void with_element_bytes(std::size_t bytes, const Work& work) {
  switch (bytes) {
    case 1: return work(Tag<std::uint8_t>());
    case 2: return work(Tag<std::uint16_t>());
    case 4: return work(Tag<std::uint32_t>());
    case 8: return work(Tag<std::uint64_t>());
    default: throw Error(ErrorCode::internal, "no kernel for elements of " + std::to_string(bytes) + " bytes");
  }
}

// Calls `work(Tag<T>())` with the type of an integer or bool dtype.
template <typename Work>
void with_integer_type(DType dtype, const Work& work) {
  switch (dtype) {
    case DType::i8: return work(Tag<std::int8_t>());
    case DType::boolean:
    case DType::u8: return work(Tag<std::uint8_t>());
    case DType::i16: return work(Tag<std::int16_t>());
    case DType::u16: return work(Tag<std::uint16_t>());
    case DType::i32: return work(Tag<std::int32_t>());
    case DType::u32: return work(Tag<std::uint32_t>());
    case DType::i64: return work(Tag<std::int64_t>());
    case DType::u64: return work(Tag<std::uint64_t>());
    default: throw Error(ErrorCode::internal, "no kernel for " + std::string(to_string(dtype)));
  }
}

// Blocks that cover `count` with `block` each; the last dimension of a grid holds 2^31 − 1.
inline unsigned grid_for(std::int64_t count, std::int64_t block) {
  const std::int64_t blocks = (count + block - 1) / block;
  if (blocks > 0x7fffffff) throw Error(ErrorCode::unsupported, std::to_string(count) + " elements are more than one kernel can be given");
  return static_cast<unsigned>(blocks);
}

// Two floats rounded, the first in the low half.
template <typename T>
__device__ __forceinline__ unsigned pack(float first, float second) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(first, second);
    return *reinterpret_cast<const unsigned*>(&pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    return *reinterpret_cast<const unsigned*>(&pair);
  }
}

}  // namespace tandem::cuda
