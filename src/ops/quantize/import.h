// ONNX's quantised ops as ours.
#pragma once

#include "graph/builder.h"

namespace tandem::ops {

std::vector<Value*> import_quantize(const ForeignNode& node, GraphBuilder& builder);
std::vector<Value*> import_dequantize(const ForeignNode& node, GraphBuilder& builder);
// Three results: the numbers, their scale, their zero point.
std::vector<Value*> import_dynamic_quantize(const ForeignNode& node, GraphBuilder& builder);
std::vector<Value*> import_matmul_integer(const ForeignNode& node, GraphBuilder& builder);

}  // namespace tandem::ops
