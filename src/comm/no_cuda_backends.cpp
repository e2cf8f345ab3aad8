// Stands in for gpu_backends.cpp in programs without CUDA.
#include "comm/gpu_group.h"

namespace tandem {

std::span<const GpuBackend> gpu_backends() { return {}; }

}  // namespace tandem
