#include "import/onnx/node_reader.h"

#include "core/check.h"
#include "ops/custom/registry.h"

namespace tandem::onnx_import {
namespace {

using Type = onnx::AttributeProto;

// Files older than IR 2 and some tools leave the type out.
int type_of(const onnx::AttributeProto& a) {
  if (a.type() != Type::UNDEFINED) return a.type();
  if (a.has_f()) return Type::FLOAT;
  if (a.has_i()) return Type::INT;
  if (a.has_s()) return Type::STRING;
  if (a.has_t()) return Type::TENSOR;
  if (a.has_g()) return Type::GRAPH;
  if (a.floats_size() > 0) return Type::FLOATS;
  return a.strings_size() > 0 ? Type::STRINGS : Type::INTS;
}

std::optional<ForeignAttribute> read_attribute(const onnx::AttributeProto& a, TensorReader& tensors) {
  switch (type_of(a)) {
    case Type::FLOAT: return static_cast<double>(a.f());
    case Type::INT: return std::int64_t{a.i()};
    case Type::STRING: return a.s();
    case Type::TENSOR: return tensors.read(a.t());
    case Type::FLOATS: return std::vector<double>(a.floats().begin(), a.floats().end());
    case Type::INTS: return std::vector<std::int64_t>(a.ints().begin(), a.ints().end());
    case Type::STRINGS: return std::vector<std::string>(a.strings().begin(), a.strings().end());
    case Type::GRAPH: return std::nullopt;
    default: fail(ErrorCode::unsupported, "attribute '{}' has a type that is not supported", a.name());
  }
}

}  // namespace

std::string label(const onnx::NodeProto& node, const std::string& prefix) {
  const std::string& name = !node.name().empty() ? node.name() : node.output_size() > 0 ? node.output(0) : node.name();
  return fmt::format("{} \"{}{}\"", node.op_type(), prefix, name);
}

const onnx::AttributeProto* find_attribute(const onnx::NodeProto& node, const std::string& name, const Bindings& bindings) {
  for (const onnx::AttributeProto& a : node.attribute()) {
    if (a.name() != name) continue;
    if (a.ref_attr_name().empty()) return &a;
    const auto bound = bindings.find(a.ref_attr_name());
    return bound == bindings.end() ? nullptr : bound->second;
  }
  return nullptr;
}

ForeignNode read_node(const onnx::NodeProto& node, const Opsets& opsets, const Bindings& bindings, TensorReader& tensors) {
  ForeignNode out;
  out.op_type = node.op_type();
  out.domain = domain_name(node.domain());
  const auto opset = opsets.find(out.domain);
  if (opset == opsets.end() && out.domain.empty()) fail(ErrorCode::invalid_model, "the model imports no opset of ai.onnx");
  out.opset = opset == opsets.end() ? 1 : opset->second;
  for (const onnx::AttributeProto& a : node.attribute()) {
    const onnx::AttributeProto* meant = find_attribute(node, a.name(), bindings);
    if (!meant) continue;
    if (auto value = read_attribute(*meant, tensors)) out.attributes.insert_or_assign(a.name(), std::move(*value));
  }
  out.outputs.assign(node.output().begin(), node.output().end());
  return out;
}

const OnnxRule& find_rule(const OpSet& ops, const ForeignNode& node) {
  const OnnxRule* best = nullptr;
  int first = 0;  // the oldest version that some rule understands
  for (const OpDef* op : ops.all())
    for (const OnnxRule& rule : op->onnx) {
      if (rule.op_type != node.op_type || rule.domain != node.domain) continue;
      first = first == 0 ? rule.since : std::min(first, rule.since);
      if (rule.since <= node.opset && (!best || rule.since > best->since)) best = &rule;
    }
  if (best) return *best;
  if (find_custom_op(node.domain + "::" + node.op_type)) return custom_rule();
  if (first > 0)
    fail(ErrorCode::unsupported, "op {} is supported from opset {} on, the model uses {}: export it with a newer opset", node.op_type,
         first, node.opset);
  const std::string domain = node.domain.empty() ? "ai.onnx" : node.domain;
  fail(ErrorCode::unsupported, "op {} of domain '{}', opset {}, is not supported: {}", node.op_type, domain, node.opset,
       node.domain.empty()
           ? "express it by other ops before export, or add it to the list of ops"
           : "export with the standard operators of ai.onnx instead of fused or custom ones, or register it (tandem/custom_op.h)");
}

}  // namespace tandem::onnx_import
