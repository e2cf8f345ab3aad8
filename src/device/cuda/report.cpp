#include <fmt/format.h>

#include "device/cuda/library.h"
#include "device/device.h"
#include "tandem/error.h"

namespace tandem {

CudaReport report_cuda() {
  using namespace cuda;
  CudaReport report;
  try {
    open_cuda_device(0);
  } catch (const Error& error) {
    report.problem = error.message();
  }
  for (const Which which : kAllLibraries) {
    const LibrarySpec& spec = spec_of(which);
    CudaReport::Library entry{std::string(spec.name), std::string(spec.purpose), {}, {}, {}};
    std::string why;
    if (const Library* found = find_library(which, &why)) entry.path = found->path(), entry.version = found->version();
    else entry.how_to_get = why.find(" be used: ") == std::string::npos ? std::string(spec.how_to_get) : why;
    report.libraries.push_back(std::move(entry));
  }
  report.looked_in = places();
  return report;
}

}  // namespace tandem
