// The ONNX rule of DistCollective, the node of files that other tools sharded.
#pragma once

#include <vector>

#include "graph/builder.h"

namespace tandem::collective {

// Attributes: collective_operation, reduce_op, root (a global rank), nb_rank (absent: the world), group_size, groups (one
// group as a flat list).
std::vector<Value*> import_dist_collective(const ForeignNode& node, GraphBuilder& builder);

}  // namespace tandem::collective
