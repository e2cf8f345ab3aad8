// Small ONNX models written in a few lines, for tests of the importer.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "import/onnx/import.h"
#include "onnx-ml.pb.h"
#include "tandem/error.h"

namespace tandem::testing {

struct OnnxModel {
  onnx::ModelProto proto;

  explicit OnnxModel(int opset = 17, int ir = 8);
  onnx::GraphProto& graph() { return *proto.mutable_graph(); }
  // Extents: a number, a name, or "" for nothing at all.
  OnnxModel& input(const std::string& name, const std::vector<std::string>& dims, int type = onnx::TensorProto::FLOAT);
  OnnxModel& output(const std::string& name);
  onnx::TensorProto& floats(const std::string& name, std::vector<std::int64_t> dims, const std::vector<float>& values);
  onnx::TensorProto& integers(const std::string& name, std::vector<std::int64_t> dims, const std::vector<std::int64_t>& values);
  onnx::NodeProto& node(const std::string& op, const std::vector<std::string>& inputs, const std::vector<std::string>& outputs,
                        const std::string& name = {});

  std::unique_ptr<Module> import(const ImportOptions& options = {}, const std::filesystem::path& folder = ".") const;
};

onnx::NodeProto& add_node(google::protobuf::RepeatedPtrField<onnx::NodeProto>* nodes, const std::string& op,
                          const std::vector<std::string>& inputs, const std::vector<std::string>& outputs, const std::string& name = {});
onnx::AttributeProto& add_attribute(onnx::NodeProto& node, const std::string& name, onnx::AttributeProto::AttributeType type);
// Expects an Error of this code whose text holds every one of `parts`.
void expect_refused(const OnnxModel& model, ErrorCode code, const std::vector<std::string>& parts, const ImportOptions& options = {},
                    const std::filesystem::path& folder = ".");

}  // namespace tandem::testing
