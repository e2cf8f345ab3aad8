// Ranges for Nsight and its like. NVTX is headers only: it opens the tool that NVTX_INJECTION64_PATH names, where one does, and else
// nothing.
#include "device/cuda/runtime.h"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>

namespace tandem::cuda {
void CudaDevice::begin_range(const char* name) noexcept { nvtxRangePushA(name); }
void CudaDevice::end_range() noexcept { nvtxRangePop(); }
}  // namespace tandem::cuda
#else
namespace tandem::cuda {
void CudaDevice::begin_range(const char*) noexcept {}
void CudaDevice::end_range() noexcept {}
}  // namespace tandem::cuda
#endif
