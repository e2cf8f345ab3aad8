// Reads ONNX models: files as exporters and sharding tools write them become a Module with one program, `main`.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/profile.h"

namespace tandem {

struct ImportOptions {
  int world_size = 1;  // ranks that will run the file; for files that other tools have sharded
  // Per input one range per dimension; they become the profile of the symbols found there. A dimension that is a number must
  // be given that number.
  InputRanges shapes;
  std::vector<InputRanges> further_shapes = {};  // the same of further optimization profiles
  // What the file's sharding annotations are read for: those of its device configuration with this many devices become
  // Module::placements. One rank: they are left aside, with a notice.
  Mesh mesh = {};
  bool refittable = false;  // compute nothing with the contents of weights, so that others can take their place
};

// What is imported: IR versions 3 to 14, opsets 7 to 24 of the default domain, all nodes the outputs need; the rest is skipped.
// Initialisers become sources and weights under their own names, but for integers of up to 1024 elements and single numbers,
// which become Constants. Shape arithmetic follows the inputs' symbolic extents; extents of the outputs are inferred, what
// the file says about them is ignored. If with a known predicate and functions of the model are inlined.
//
// Symbols without a range from `shapes` get min 1, opt 8, max 65536 (min 0 if "past" is part of the name; opt and max twice that
// if "total" is); lowered where a table of fixed size is shorter, derived where a constraint ties a symbol to others.
//
// ONNX's sharding annotations (NodeProto.device_configurations) may place inputs, outputs, weights and what lies between; device numbers
// are ranks. Error(unsupported) names the value and the node where one cannot be expressed by axes of the mesh.
//
// Throws Error: io (file), invalid_model (breaks ONNX's rules), unsupported (with node, op, domain and opset), invalid_argument
// (`shapes` does not fit), out_of_memory. Hostile files are refused, never followed out of their folder.
std::unique_ptr<Module> import_onnx(const std::filesystem::path& path, const ImportOptions& options = {});
// The same from memory; external data is looked for inside `folder`.
std::unique_ptr<Module> import_onnx(std::span<const std::byte> model, const std::filesystem::path& folder,
                                    const ImportOptions& options = {});

}  // namespace tandem
