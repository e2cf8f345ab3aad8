// ONNX's numbers for element types (TensorProto.DataType), without protobuf.
#pragma once

#include "tandem/types.h"

namespace tandem {

// Throws Error(unsupported) for a type that Tandem has not (strings, complex numbers, …).
DType dtype_from_onnx(std::int64_t code);
std::int64_t dtype_to_onnx(DType type);

}  // namespace tandem
