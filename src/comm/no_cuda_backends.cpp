// Stands in for gpu_backends.cpp in programs without CUDA.
#include "comm/gpu_group.h"
#include "core/check.h"
#include "tandem/nccl.h"

namespace tandem {

std::span<const GpuBackend> gpu_backends() { return {}; }

std::unique_ptr<Group> group_from_nccl(ncclComm*) {
  fail(ErrorCode::unsupported, "this program was built without CUDA: `make cuda` builds one that runs on GPUs and CPUs");
}

}  // namespace tandem
