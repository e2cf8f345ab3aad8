// Nodes of an ONNX file as ForeignNodes, and the op that imports each.
#pragma once

#include <map>
#include <string>

#include "graph/builder.h"
#include "import/onnx/tensor_reader.h"

namespace tandem::onnx_import {

// Attributes of a function call, by name: what ref_attr_name inside the function's body means.
using Bindings = std::map<std::string, const onnx::AttributeProto*>;

// Op "name", or the first output where the node has no name; for errors.
std::string label(const onnx::NodeProto& node, const std::string& prefix = {});
// Null if the node has no such attribute; follows references to the enclosing call.
const onnx::AttributeProto* find_attribute(const onnx::NodeProto& node, const std::string& name, const Bindings& bindings);
// Everything but inputs, world size and name. Graphs are left out: If is imported elsewhere.
ForeignNode read_node(const onnx::NodeProto& node, const Opsets& opsets, const Bindings& bindings, TensorReader& tensors);
// The rule with the highest `since` that the node's opset reaches. Throws Error(unsupported) saying what to do.
const OnnxRule& find_rule(const OpSet& ops, const ForeignNode& node);

}  // namespace tandem::onnx_import
