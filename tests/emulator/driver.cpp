// The driver's calls for memory that several processes map (comm/peer/driver.h): files in memory, passed on as descriptors.
#include <cuda.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "emulator/gpu.h"
#include "emulator/memory.h"

namespace {

using namespace tandem::emulator;

constexpr std::size_t kUnit = 64 << 10;

void* pointer(CUdeviceptr at) { return reinterpret_cast<void*>(at); }
CUresult succeed(bool did) { return did ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }
int descriptor(CUmemGenericAllocationHandle handle) { return static_cast<int>(handle); }

CUresult error_string(CUresult, const char** text) {
  *text = "an error of the emulated driver";
  return CUDA_SUCCESS;
}
CUresult device_attribute(int* value, CUdevice_attribute which, CUdevice) {
  *value = which == CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED;
  return CUDA_SUCCESS;
}
CUresult granularity(std::size_t* unit, const CUmemAllocationProp*, CUmemAllocationGranularity_flags) {
  *unit = kUnit;
  return CUDA_SUCCESS;
}
CUresult create(CUmemGenericAllocationHandle* handle, std::size_t bytes, const CUmemAllocationProp* properties, unsigned long long) {
  if (bytes > memory_left(properties->location.id)) return CUDA_ERROR_OUT_OF_MEMORY;
  const int file = memfd_create("tandem-emulated-gpu", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, static_cast<off_t>(bytes)) != 0) return CUDA_ERROR_OUT_OF_MEMORY;
  *handle = static_cast<CUmemGenericAllocationHandle>(file);
  return CUDA_SUCCESS;
}
CUresult release(CUmemGenericAllocationHandle handle) { return succeed(close(descriptor(handle)) == 0); }
CUresult export_handle(void* number, CUmemGenericAllocationHandle handle, CUmemAllocationHandleType, unsigned long long) {
  *static_cast<int*>(number) = dup(descriptor(handle));
  return succeed(*static_cast<int*>(number) >= 0);
}
CUresult import_handle(CUmemGenericAllocationHandle* handle, void* number, CUmemAllocationHandleType) {
  const int file = dup(static_cast<int>(reinterpret_cast<std::uintptr_t>(number)));
  *handle = static_cast<CUmemGenericAllocationHandle>(file);
  return succeed(file >= 0);
}
CUresult reserve(CUdeviceptr* at, std::size_t bytes, std::size_t, CUdeviceptr, unsigned long long) {
  void* memory = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  *at = reinterpret_cast<CUdeviceptr>(memory);
  return succeed(memory != MAP_FAILED);
}
CUresult unreserve(CUdeviceptr at, std::size_t bytes) { return succeed(munmap(pointer(at), bytes) == 0); }
CUresult map(CUdeviceptr at, std::size_t bytes, std::size_t, CUmemGenericAllocationHandle handle, unsigned long long) {
  if (mmap(pointer(at), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, descriptor(handle), 0) == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  know(pointer(at), bytes, cudaMemoryTypeDevice, current_gpu());
  return CUDA_SUCCESS;
}
CUresult unmap(CUdeviceptr at, std::size_t bytes) {
  forget(pointer(at));
  return succeed(mmap(pointer(at), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED);
}
CUresult set_access(CUdeviceptr at, std::size_t bytes, const CUmemAccessDesc*, std::size_t) {
  return succeed(mprotect(pointer(at), bytes, PROT_READ | PROT_WRITE) == 0);
}
CUresult pointer_attribute(void*, CUpointer_attribute, CUdeviceptr) { return CUDA_ERROR_NOT_SUPPORTED; }

struct Entry {
  const char* name;
  void* function;
};
const Entry kEntries[] = {
    {"cuGetErrorString", reinterpret_cast<void*>(error_string)},
    {"cuDeviceGetAttribute", reinterpret_cast<void*>(device_attribute)},
    {"cuMemGetAllocationGranularity", reinterpret_cast<void*>(granularity)},
    {"cuMemCreate", reinterpret_cast<void*>(create)},
    {"cuMemRelease", reinterpret_cast<void*>(release)},
    {"cuMemExportToShareableHandle", reinterpret_cast<void*>(export_handle)},
    {"cuMemImportFromShareableHandle", reinterpret_cast<void*>(import_handle)},
    {"cuMemAddressReserve", reinterpret_cast<void*>(reserve)},
    {"cuMemAddressFree", reinterpret_cast<void*>(unreserve)},
    {"cuMemMap", reinterpret_cast<void*>(map)},
    {"cuMemUnmap", reinterpret_cast<void*>(unmap)},
    {"cuMemSetAccess", reinterpret_cast<void*>(set_access)},
    {"cuPointerGetAttribute", reinterpret_cast<void*>(pointer_attribute)},
};

}  // namespace

extern "C" cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** found, unsigned, unsigned long long,
                                                        cudaDriverEntryPointQueryResult* result) {
  *found = nullptr;
  *result = cudaDriverEntryPointSymbolNotFound;
  for (const Entry& entry : kEntries) {
    if (std::strcmp(entry.name, name) != 0) continue;
    *found = entry.function;
    *result = cudaDriverEntryPointSuccess;
  }
  return cudaSuccess;
}
