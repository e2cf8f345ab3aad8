// Whether this process has lost a GPU.
#pragma once

namespace tandem {

// Of device/cuda, or of its stand-in in programs without it. Never waits.
bool any_gpu_lost() noexcept;

}  // namespace tandem
