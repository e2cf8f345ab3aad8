// Stands in for device/cuda in programs without it.
#include "core/check.h"
#include "device/code.h"
#include "device/links.h"
#include "device/lost.h"
#include "device/upload.h"

namespace tandem {

std::shared_ptr<Device> open_cuda_device(int) {
  fail(ErrorCode::unsupported, "this program was built without CUDA: `make cuda` builds one that runs on GPUs and CPUs");
}

int cuda_device_count() { return 0; }
bool any_gpu_lost() noexcept { return false; }
void upload_to_cuda(Device&, std::span<const Upload>, Deadline) {}
int cuda_number(const Device&) { return -1; }
bool is_read_late_by_cuda(const void*) { return false; }

std::vector<int> gpus_reached_by(int) { return {}; }

bool can_compile_cuda(std::string* why) {
  if (why) *why = "this program was built without CUDA";
  return false;
}

CodeBytes compile_cuda(const std::string&, int) { fail(ErrorCode::unsupported, "this program was built without CUDA"); }

void offer_cuda_code(const std::string&, int, CodeBytes) {}

bool built_with_cuda() { return false; }
CudaReport report_cuda() { return {}; }

}  // namespace tandem
