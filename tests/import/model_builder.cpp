#include "import/model_builder.h"

#include <gtest/gtest.h>

namespace tandem::testing {

OnnxModel::OnnxModel(int opset, int ir) {
  proto.set_ir_version(ir);
  proto.add_opset_import()->set_version(opset);
  proto.mutable_graph()->set_name("g");
}

OnnxModel& OnnxModel::input(const std::string& name, const std::vector<std::string>& dims, int type) {
  onnx::ValueInfoProto* info = graph().add_input();
  info->set_name(name);
  auto* tensor = info->mutable_type()->mutable_tensor_type();
  tensor->set_elem_type(type);
  tensor->mutable_shape();
  for (const std::string& d : dims) {
    auto* dim = tensor->mutable_shape()->add_dim();
    if (d.empty()) continue;
    if (d.find_first_not_of("-0123456789") == std::string::npos) dim->set_dim_value(std::stoll(d));
    else dim->set_dim_param(d);
  }
  return *this;
}

OnnxModel& OnnxModel::output(const std::string& name) {
  graph().add_output()->set_name(name);
  return *this;
}

onnx::TensorProto& OnnxModel::floats(const std::string& name, std::vector<std::int64_t> dims, const std::vector<float>& values) {
  onnx::TensorProto* t = graph().add_initializer();
  t->set_name(name);
  t->set_data_type(onnx::TensorProto::FLOAT);
  for (const std::int64_t d : dims) t->add_dims(d);
  for (const float v : values) t->add_float_data(v);
  return *t;
}

onnx::TensorProto& OnnxModel::integers(const std::string& name, std::vector<std::int64_t> dims, const std::vector<std::int64_t>& values) {
  onnx::TensorProto* t = graph().add_initializer();
  t->set_name(name);
  t->set_data_type(onnx::TensorProto::INT64);
  for (const std::int64_t d : dims) t->add_dims(d);
  for (const std::int64_t v : values) t->add_int64_data(v);
  return *t;
}

onnx::NodeProto& add_node(google::protobuf::RepeatedPtrField<onnx::NodeProto>* nodes, const std::string& op,
                          const std::vector<std::string>& inputs, const std::vector<std::string>& outputs, const std::string& name) {
  onnx::NodeProto* node = nodes->Add();
  node->set_op_type(op);
  node->set_name(name);
  for (const std::string& i : inputs) node->add_input(i);
  for (const std::string& o : outputs) node->add_output(o);
  return *node;
}

onnx::NodeProto& OnnxModel::node(const std::string& op, const std::vector<std::string>& inputs, const std::vector<std::string>& outputs,
                                 const std::string& name) {
  return add_node(graph().mutable_node(), op, inputs, outputs, name);
}

onnx::AttributeProto& add_attribute(onnx::NodeProto& node, const std::string& name, onnx::AttributeProto::AttributeType type) {
  onnx::AttributeProto* a = node.add_attribute();
  a->set_name(name);
  a->set_type(type);
  return *a;
}

std::unique_ptr<Module> OnnxModel::import(const ImportOptions& options, const std::filesystem::path& folder) const {
  const std::string bytes = proto.SerializeAsString();
  auto module = import_onnx(std::as_bytes(std::span(bytes)), folder, options);
  verify(*module);
  return module;
}

void expect_refused(const OnnxModel& model, ErrorCode code, const std::vector<std::string>& parts, const ImportOptions& options,
                    const std::filesystem::path& folder) {
  try {
    model.import(options, folder);
    ADD_FAILURE() << "imported, expected an error with '" << parts.at(0) << "'";
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(code)) << error.what();
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what() << "\nlacks: " << part;
  }
}

}  // namespace tandem::testing
