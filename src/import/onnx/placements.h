// ONNX's standard sharding annotations, in terms of mesh axes.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "graph/mesh.h"
#include "onnx-ml.pb.h"

namespace tandem::onnx_import {

// Where the model's device configuration with as many devices as the mesh has ranks wants values to lie: name → "same" or
// "DIM:AXIS[,DIM:AXIS…]". Empty where nothing is annotated; with a notice where no configuration fits. Throws Error(invalid_model |
// unsupported) naming value and node.
std::map<std::string, std::string> read_placements(const onnx::ModelProto& model, const Mesh& mesh, std::vector<std::string>& notices);

}  // namespace tandem::onnx_import
