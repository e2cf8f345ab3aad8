#include "comm/peer/driver.h"

#include <cuda_runtime.h>

#include <mutex>

#include "core/check.h"

namespace tandem::peer {
namespace {

template <typename F>
bool find(const char* name, F& to) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  constexpr unsigned kVersion = 12000;  // all of them are older
  const cudaError_t status = cudaGetDriverEntryPointByVersion(name, &found, kVersion, cudaEnableDefault, &result);
  cudaGetLastError();
  to = reinterpret_cast<F>(found);
  return status == cudaSuccess && result == cudaDriverEntryPointSuccess && found != nullptr;
}

}  // namespace

void Driver::check(CUresult status, const char* what) const {
  if (status == CUDA_SUCCESS) return;
  const char* text = nullptr;
  if (error_string(status, &text) != CUDA_SUCCESS || !text) text = "an error without a name";
  fail(status == CUDA_ERROR_OUT_OF_MEMORY ? ErrorCode::out_of_memory : ErrorCode::unsupported, "{}: {} ({})", what, text,
       static_cast<int>(status));
}

const Driver* find_driver(std::string* why) {
  static Driver driver;
  static const char* missing = nullptr;
  static std::once_flag once;
  std::call_once(once, [] {
    const auto need = [](const char* name, auto& to) {
      if (!find(name, to) && !missing) missing = name;
    };
    need("cuGetErrorString", driver.error_string);
    need("cuDeviceGetAttribute", driver.device_attribute);
    need("cuMemGetAllocationGranularity", driver.granularity);
    need("cuMemCreate", driver.create);
    need("cuMemRelease", driver.release);
    need("cuMemExportToShareableHandle", driver.export_handle);
    need("cuMemImportFromShareableHandle", driver.import_handle);
    need("cuMemAddressReserve", driver.reserve);
    need("cuMemAddressFree", driver.unreserve);
    need("cuMemMap", driver.map);
    need("cuMemUnmap", driver.unmap);
    need("cuMemSetAccess", driver.set_access);
    need("cuPointerGetAttribute", driver.pointer_attribute);
  });
  if (missing && why) *why = fmt::format("the NVIDIA driver has no {}", missing);
  return missing ? nullptr : &driver;
}

}  // namespace tandem::peer
