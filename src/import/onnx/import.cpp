#include "import/onnx/import.h"

#include <new>
#include <stdexcept>

#include "core/check.h"
#include "import/onnx/graph_reader.h"
#include "ops/ops.h"

namespace tandem {
namespace {

std::unique_ptr<Module> import_file(const onnx_import::ModelFile& file, const ImportOptions& options) {
  auto module = std::make_unique<Module>(all_ops());
  module->refittable = options.refittable;
  Graph& graph = module->add_graph("main");
  onnx_import::GraphReader(graph, file, options).run();
  module->erase_unused_weights();
  return module;
}

// Sizes a hostile file asks for end in an Error, not in what the allocator throws.
template <typename F>
std::unique_ptr<Module> guarded(F import) {
  try {
    return import();
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::out_of_memory, "the model needs more memory than there is");
  } catch (const std::length_error&) {
    fail(ErrorCode::out_of_memory, "the model needs more memory than there is");
  }
}

}  // namespace

std::unique_ptr<Module> import_onnx(const std::filesystem::path& path, const ImportOptions& options) {
  try {
    return guarded([&] { return import_file(onnx_import::read_model(path), options); });
  } catch (const Error& error) {
    if (!error.node().empty() || error.code() == ErrorCode::invalid_argument) throw;
    throw Error(error.code(), fmt::format("{}: {}", path.filename().string(), error.message()));
  }
}

std::unique_ptr<Module> import_onnx(std::span<const std::byte> model, const std::filesystem::path& folder, const ImportOptions& options) {
  return guarded([&] { return import_file(onnx_import::parse_model(model, folder), options); });
}

}  // namespace tandem
