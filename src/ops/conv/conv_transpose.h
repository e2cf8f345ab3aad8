// The import rule of ONNX's ConvTranspose, which needs no op of its own.
#pragma once

#include <vector>

#include "graph/builder.h"
#include "ops/conv/window.h"

namespace tandem::conv {

// Of an integer number of rows per spatial dimension, or expressions of them; the weight's extents are numbers.
std::vector<Value*> import_transpose(const ForeignNode& node, GraphBuilder& builder);

}  // namespace tandem::conv
