// An ONNX file as parsed protobuf, with its versions checked.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "onnx-ml.pb.h"

namespace tandem::onnx_import {

// Opset of each domain; the default domain is "" however it is spelled.
using Opsets = std::map<std::string, int>;

struct ModelFile {
  std::shared_ptr<const onnx::ModelProto> model;
  std::filesystem::path folder;  // external data lies inside
  Opsets opsets;
};

// Throw Error(io | invalid_model | unsupported).
ModelFile read_model(const std::filesystem::path& path);
ModelFile parse_model(std::span<const std::byte> bytes, const std::filesystem::path& folder);

std::string domain_name(const std::string& domain);
// Throws where the default domain's opset is outside of what is supported.
Opsets read_opsets(const google::protobuf::RepeatedPtrField<onnx::OperatorSetIdProto>& imports);

}  // namespace tandem::onnx_import
