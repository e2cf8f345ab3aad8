// Which GPUs of this machine reach each other.
#pragma once

#include <vector>

namespace tandem {

// The GPUs whose memory this one can read and write directly; none in programs without CUDA.
std::vector<int> gpus_reached_by(int gpu);

}  // namespace tandem
