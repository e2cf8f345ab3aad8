// The driver's own functions for memory that several processes can map; found when the program runs, for programs start without a driver.
#pragma once

#include <cuda.h>

#include <string>

namespace tandem::peer {

struct Driver {
  decltype(&cuGetErrorString) error_string = nullptr;
  decltype(&cuDeviceGetAttribute) device_attribute = nullptr;
  decltype(&cuMemGetAllocationGranularity) granularity = nullptr;
  decltype(&cuMemCreate) create = nullptr;
  decltype(&cuMemRelease) release = nullptr;
  decltype(&cuMemExportToShareableHandle) export_handle = nullptr;
  decltype(&cuMemImportFromShareableHandle) import_handle = nullptr;
  decltype(&cuMemAddressReserve) reserve = nullptr;
  decltype(&cuMemAddressFree) unreserve = nullptr;
  decltype(&cuMemMap) map = nullptr;
  decltype(&cuMemUnmap) unmap = nullptr;
  decltype(&cuMemSetAccess) set_access = nullptr;
  decltype(&cuPointerGetAttribute) pointer_attribute = nullptr;

  // Throws Error(out_of_memory | unsupported) saying what was tried and what the driver says.
  void check(CUresult status, const char* what) const;
};

// Null where the driver is missing or too old, with the reason as half a sentence. Thread-safe.
const Driver* find_driver(std::string* why);

}  // namespace tandem::peer
