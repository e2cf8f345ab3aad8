#include "ops/libraries_cpu.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hwy/highway.h>

#include <algorithm>
#include <cctype>

#include "device/device.h"

#ifdef TANDEM_ONEDNN
#include <dnnl.hpp>
#endif

namespace tandem {

namespace {

// "cuBLASLt" → "cublaslt"
std::map<std::string, std::string> cuda_versions() {
  std::map<std::string, std::string> found;
  for (const CudaReport::Library& library : report_cuda().libraries) {
    std::string name = library.name;
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (!library.path.empty()) found[name] = library.version;
  }
  return found;
}

}  // namespace

const std::map<std::string, std::string>& library_versions(std::string_view device) {
  static const std::map<std::string, std::string> nothing;
  if (device == "cuda" && built_with_cuda()) {
    static const std::map<std::string, std::string> cuda = cuda_versions();
    return cuda;
  }
  if (device != "cpu") return nothing;
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
