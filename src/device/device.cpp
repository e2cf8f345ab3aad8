#include "device/device.h"

#include "core/check.h"

namespace tandem {

bool has_device_kind(std::string_view kind) { return kind == "cpu" || (kind == "cuda" && built_with_cuda()); }

std::shared_ptr<Device> open_device(std::string_view kind, int rank) {
  if (kind == "cpu") return cpu_device();
  if (kind == "cuda") return open_cuda_device(rank);
  fail(ErrorCode::unsupported, "there is no device of kind '{}': cpu and cuda are known", kind);
}

}  // namespace tandem
