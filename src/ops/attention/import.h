// ONNX rules of the attention family.
#pragma once

#include <vector>

#include "graph/builder.h"

namespace tandem::attention {

// Attention of opsets 23 and 24, and of files by sharding tools under any opset (`nb_rank`, `nbRanks`).
std::vector<Value*> import_attention(const ForeignNode& node, GraphBuilder& builder);
std::vector<Value*> import_rotary_embedding(const ForeignNode& node, GraphBuilder& builder);

}  // namespace tandem::attention
