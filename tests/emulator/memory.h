// What memory is a GPU's, or is pinned.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace tandem::emulator {

void know(const void* memory, std::size_t bytes, cudaMemoryType type, int gpu);
bool forget(const void* memory);  // false: it was not known
// Bytes.
std::size_t memory_left(int gpu);

}  // namespace tandem::emulator
