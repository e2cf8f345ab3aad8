// The structs of DLPack 1.x that this package reads, as https://dmlc.github.io/dlpack lays them out in memory.
#pragma once

#include <cstdint>

namespace tandem::python::dlpack {

struct Device {
  std::int32_t type, id;
};

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: dense row-major
  std::uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* manager_ctx;
  void (*deleter)(ManagedTensor*);
};

struct Version {
  std::uint32_t major, minor;
};

struct ManagedTensorVersioned {
  Version version;
  void* manager_ctx;
  void (*deleter)(ManagedTensorVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};

inline constexpr std::uint64_t kReadOnly = 1;
inline constexpr std::int32_t kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13;
// Memory that a GPU works on, and memory that the host does.
inline bool is_gpu(const Device& device) { return device.type == kCuda || device.type == kCudaManaged; }
inline bool is_host(const Device& device) { return device.type == kCpu || device.type == kCudaHost; }
enum Code : std::uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6, kFloat8E4m3fn = 10, kFloat8E5m2 = 12 };

// What a type's __dlpack_c_exchange_api__ capsule points to: reading a tensor without Python calls or reference counts.
struct ExchangeHeader {
  Version version;
  ExchangeHeader* previous;
};
struct ExchangeApi {
  ExchangeHeader header;
  int (*allocate)(Tensor*, ManagedTensorVersioned**, void*, void (*)(void*, const char*, const char*));
  int (*managed_from_object)(void* object, ManagedTensorVersioned** out);
  int (*managed_to_object)(ManagedTensorVersioned* tensor, void** object);
  int (*tensor_from_object)(void* object, Tensor* out);  // borrows; null where the type cannot
  int (*current_stream)(std::int32_t, std::int32_t, void**);
};

}  // namespace tandem::python::dlpack
