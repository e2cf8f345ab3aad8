// The ops of Tandem. ops.def is the list; each op's definition lies in its family's folder.
#pragma once

#include "graph/op_def.h"

namespace tandem {

const OpSet& all_ops();

namespace ops {
#define TANDEM_OP(name) extern const OpDef name;
#include "ops/ops.def"
}  // namespace ops

}  // namespace tandem
