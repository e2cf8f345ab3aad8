#include "ops/libraries_cpu.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hwy/highway.h>

#ifdef TANDEM_ONEDNN
#include <dnnl.hpp>
#endif

namespace tandem {

const std::map<std::string, std::string>& library_versions() {
  static const std::map<std::string, std::string> versions = [] {
    std::map<std::string, std::string> found;
#ifdef TANDEM_ONEDNN
    const dnnl_version_t* onednn = dnnl_version();
    found["onednn"] = fmt::format("{}.{}.{}", onednn->major, onednn->minor, onednn->patch);
#endif
    return found;
  }();
  return versions;
}

std::string vector_code() {
  std::vector<std::string> targets;
  for (std::int64_t rest = HWY_TARGETS; rest != 0; rest &= rest - 1) targets.emplace_back(hwy::TargetName(rest & ~(rest - 1)));
  return fmt::format("Highway {}.{}.{} for {}", HWY_MAJOR, HWY_MINOR, HWY_PATCH, fmt::join(targets, ", "));
}

}  // namespace tandem
