// The graph text: what parses prints back to the same module, and neither parser nor verifier falls over anything.
#include "graph/text.h"

#include "fuzz/fuzz.h"
#include "ops/ops.h"

namespace tandem::fuzz {

std::vector<std::string> own_seeds() { return {}; }

// Pass tests: a line `passes: …`, a module, `----`, a module.
std::vector<std::string> seeds_in(std::string text) {
  const std::size_t start = text.find("module"), middle = text.find("----\n");
  if (start == std::string::npos || middle == std::string::npos || middle < start) return {};
  return {text.substr(start, middle - start), text.substr(middle + 5)};
}

}  // namespace tandem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tandem;
  const std::string_view text = fuzz::as_text(std::as_bytes(std::span(data, size)));
  std::unique_ptr<Module> module;
  fuzz::refusing([&] { module = parse_module(text, all_ops()); });
  if (!module) return 0;
  fuzz::refusing([&] { verify(*module); });
  std::string why;
  const auto back = parse_module(print(*module), all_ops());
  fuzz::expect(same(*module, *back, &why), "the printed form parses to another module: " + why);
  return 0;
}
