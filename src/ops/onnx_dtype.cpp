#include "ops/onnx_dtype.h"

#include <array>
#include <utility>

#include "core/check.h"

namespace tandem {
namespace {

constexpr std::array<std::pair<std::int64_t, DType>, 17> kCodes = {{
    {1, DType::f32},
    {2, DType::u8},
    {3, DType::i8},
    {4, DType::u16},
    {5, DType::i16},
    {6, DType::i32},
    {7, DType::i64},
    {9, DType::boolean},
    {10, DType::f16},
    {11, DType::f64},
    {12, DType::u32},
    {13, DType::u64},
    {16, DType::bf16},
    {17, DType::f8e4m3},
    {19, DType::f8e5m2},
    {21, DType::u4},
    {22, DType::i4},
}};

}  // namespace

DType dtype_from_onnx(std::int64_t code) {
  for (const auto& [number, type] : kCodes)
    if (number == code) return type;
  fail(ErrorCode::unsupported, "ONNX element type {} is not supported", code);
}

std::int64_t dtype_to_onnx(DType type) {
  for (const auto& [number, known] : kCodes)
    if (known == type) return number;
  fail(ErrorCode::internal, "no ONNX number for {}", to_string(type));
}

}  // namespace tandem
