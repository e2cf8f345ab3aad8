#include "graph/text.h"

namespace tandem {

std::unique_ptr<Module> clone(const Module& module) {
  auto copy = parse_module(print(module), module.ops());
  for (const auto& [name, data] : module.sources()) copy->add_source(name, data);
  copy->refittable = module.refittable;
  copy->folded_sources = module.folded_sources;
  return copy;
}

}  // namespace tandem
