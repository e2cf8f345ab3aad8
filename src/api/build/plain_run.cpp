#include "api/build/plain_run.h"

#include <set>

#include "api/run/engine_data.h"
#include "core/check.h"
#include "graph/evaluate.h"
#include "import/onnx/import.h"

namespace tandem {
namespace {

// The extents for which random inputs are made.
SymbolValues typical_symbols_of(const Graph& graph) {
  std::set<std::string> names;
  for (const auto& input : graph.inputs())
    for (const Dim& dim : input->type.dims) dim.collect_symbols(names);
  SymbolValues symbols;
  for (const std::string& name : names) symbols[name] = 1;
  if (!graph.profiles.empty())
    for (const auto& [name, range] : graph.profiles[0]) symbols[name] = range.opt;
  return symbols;
}

}  // namespace

Arrays run_plainly(const std::string& path, const BuildOptions& options, const Arrays& inputs) {
  ImportOptions import;
  import.shapes = parse_shapes(options.shapes);
  const auto module = import_onnx(std::filesystem::path(path), import);
  NamedTensors tensors;
  for (const auto& [name, array] : inputs) tensors[name] = to_tensor(array);
  Arrays outputs;
  for (const auto& [name, tensor] : evaluate(module->main(), tensors, typical_symbols_of(module->main()))) outputs[name] = to_array(tensor);
  return outputs;
}

}  // namespace tandem
