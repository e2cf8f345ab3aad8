// The ONNX importer: what it accepts is a module that verifies and survives the text form.
#include "fuzz/fuzz.h"
#include "graph/text.h"
#include "import/onnx/import.h"
#include "ops/ops.h"

namespace tandem::fuzz {

std::vector<std::string> own_seeds() { return {}; }
std::vector<std::string> seeds_in(std::string) { return {}; }

}  // namespace tandem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tandem;
  std::unique_ptr<Module> module;
  // No external data: the folder does not exist.
  fuzz::refusing([&] { module = import_onnx(std::as_bytes(std::span(data, size)), "no/such/folder", {.world_size = 4}); });
  if (!module) return 0;
  verify(*module);
  std::string why;
  const auto back = parse_module(print(*module), all_ops());
  fuzz::expect(same(*module, *back, &why), "the printed form parses to another module: " + why);
  return 0;
}
