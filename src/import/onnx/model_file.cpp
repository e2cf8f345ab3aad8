#include "import/onnx/model_file.h"

#include <climits>

#include "core/check.h"
#include "core/mapped_file.h"

namespace tandem::onnx_import {
namespace {

constexpr int kFirstIr = 3, kLastIr = 14;
constexpr int kFirstOpset = 7, kLastOpset = 24;

}  // namespace

std::string domain_name(const std::string& domain) { return domain == "ai.onnx" ? "" : domain; }

Opsets read_opsets(const google::protobuf::RepeatedPtrField<onnx::OperatorSetIdProto>& imports) {
  Opsets opsets;
  for (const onnx::OperatorSetIdProto& import : imports) {
    const std::string domain = domain_name(import.domain());
    if (domain.empty() && (import.version() < kFirstOpset || import.version() > kLastOpset))
      fail(ErrorCode::unsupported, "the model uses opset {} of ai.onnx; opsets {} to {} are supported: export it again with one of those",
           import.version(), kFirstOpset, kLastOpset);
    if (import.version() < 0 || import.version() > INT_MAX)
      fail(ErrorCode::invalid_model, "opset {} of domain '{}'", import.version(), domain);
    opsets[domain] = static_cast<int>(import.version());
  }
  return opsets;
}

ModelFile parse_model(std::span<const std::byte> bytes, const std::filesystem::path& folder) {
  if (bytes.size() > INT_MAX)
    fail(ErrorCode::unsupported, "the model file has {} bytes, protobuf reads at most {}: save the weights as external data", bytes.size(),
         INT_MAX);
  auto model = std::make_shared<onnx::ModelProto>();
  if (bytes.empty() || !model->ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    fail(ErrorCode::invalid_model, "this is no ONNX model: its protobuf does not parse");
  if (!model->has_graph() || !model->has_ir_version())
    fail(ErrorCode::invalid_model, "this is no ONNX model: it has no graph or no IR version");
  if (model->ir_version() < kFirstIr || model->ir_version() > kLastIr)
    fail(ErrorCode::unsupported, "the model has IR version {}; {} to {} are supported", model->ir_version(), kFirstIr, kLastIr);
  Opsets opsets = read_opsets(model->opset_import());
  if (opsets.empty()) fail(ErrorCode::invalid_model, "the model imports no opset");
  return {std::move(model), folder, std::move(opsets)};
}

ModelFile read_model(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  const std::filesystem::path folder = path.parent_path();
  return parse_model(file->bytes(), folder.empty() ? "." : folder);
}

}  // namespace tandem::onnx_import
