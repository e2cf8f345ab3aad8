#include <cuda_runtime.h>
#include <fmt/format.h>

#include "device/cuda/architectures.h"
#include "device/cuda/driver.h"
#include "device/cuda/library.h"
#include "device/device.h"
#include "device/links.h"
#include "tandem/error.h"

namespace tandem {

CudaReport report_cuda() {
  using namespace cuda;
  CudaReport report;
  try {
    for (int i = 0; i == 0 || i < cuda_device_count(); ++i)
      if (const auto device = open_cuda_device(i); kernels_for(device->sm()) == 0)
        report.problem = fmt::format("cuda:{}: {}", i, kernels_problem(device->sm()));
  } catch (const Error& error) {
    report.problem = error.message();
  }
  for (const Which which : kAllLibraries) {
    const LibrarySpec& spec = spec_of(which);
    CudaReport::Library entry{std::string(spec.name), std::string(spec.purpose), {}, {}, {}};
    std::string why;
    if (const Library* found = find_library(which, &why)) {
      entry.path = found->path(), entry.version = found->version();
      if (spec.extras) entry.purpose += "; " + spec.extras(*found);
    } else {
      entry.how_to_get = why.find(" be used: ") == std::string::npos ? std::string(spec.how_to_get) : why;
    }
    report.libraries.push_back(std::move(entry));
  }
  report.looked_in = places();
  return report;
}

std::vector<int> gpus_reached_by(int gpu) {
  std::vector<int> reached;
  for (int other = 0; other < cuda_device_count(); ++other) {
    int can = 0;
    if (other != gpu && cudaDeviceCanAccessPeer(&can, gpu, other) == cudaSuccess && can) reached.push_back(other);
  }
  cudaGetLastError();
  return reached;
}

}  // namespace tandem
