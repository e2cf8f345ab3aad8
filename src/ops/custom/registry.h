// The user's ops, and how the one op Custom carries their names and attributes.
#pragma once

#include <string>

#include "graph/op_def.h"
#include "tandem/custom_op.h"

namespace tandem {

// "domain::name"; null if it is not registered. What it gives stays.
const CustomOp* find_custom_op(const std::string& name);
// Of a call of Custom. Throws Error(unsupported) naming an op that is not registered.
const CustomOp& custom_op_of(const OpCall& call);

// Text that holds attributes, and back; Error(invalid_model) for text that does not.
std::string to_text(const CustomAttributes& attributes);
CustomAttributes custom_attributes(const std::string& text);

// How ONNX nodes of registered ops are imported.
const OnnxRule& custom_rule();

}  // namespace tandem
