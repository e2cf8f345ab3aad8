// ONNX's Einsum: a product of matrices between transpositions, or a transposition alone.
#pragma once

#include <vector>

#include "graph/builder.h"

namespace tandem {

// One or two operands, one letter per dimension, none twice in an operand.
std::vector<Value*> import_einsum(const ForeignNode& node, GraphBuilder& builder);

}  // namespace tandem
