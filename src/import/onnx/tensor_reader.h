// Tensors of an ONNX file: raw, typed or in files beside it.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "core/mapped_file.h"
#include "core/tensor.h"
#include "import/onnx/model_file.h"

namespace tandem::onnx_import {

class TensorReader {
 public:
  explicit TensorReader(const ModelFile& file) : model_(file.model), folder_(file.folder) {}
  // `proto` belongs to the model. Raw and external data are shared, not copied. Errors name the tensor.
  Tensor read(const onnx::TensorProto& proto);

 private:
  Tensor read_unnamed(const onnx::TensorProto& proto);
  Tensor read_external(const onnx::TensorProto& proto, DType dtype, const Shape& shape);
  std::shared_ptr<const MappedFile> external_file(const std::string& location);

  std::shared_ptr<const onnx::ModelProto> model_;
  std::filesystem::path folder_;
  std::map<std::string, std::shared_ptr<const MappedFile>> files_;
};

}  // namespace tandem::onnx_import
