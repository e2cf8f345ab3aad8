#include "api/build/plain_run.h"

#include "api/run/engine_data.h"
#include "core/check.h"
#include "graph/evaluate.h"
#include "import/onnx/import.h"
#include "plan/typical.h"

namespace tandem {
Arrays run_plainly(const std::string& path, const BuildOptions& options, const Arrays& inputs, std::size_t profile) {
  const std::vector<InputRanges> ranges = ranges_of_profiles(options);
  ImportOptions import;
  import.shapes = ranges.at(profile);
  const auto module = import_onnx(std::filesystem::path(path), import);
  NamedTensors tensors;
  for (const auto& [name, array] : inputs) tensors[name] = to_tensor(array);
  Arrays outputs;
  for (const auto& [name, tensor] : evaluate(module->main(), tensors, typical_symbols(module->main()))) outputs[name] = to_array(tensor);
  return outputs;
}

}  // namespace tandem
