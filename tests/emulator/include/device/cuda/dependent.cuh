// In place of src/device/cuda/dependent.cuh, for emulated GPUs: each kernel begins when the one before it has ended.
#pragma once

#include <tuple>

#include "device/cuda/start.h"
#include "emulator/gpu.h"

namespace tandem::cuda {

inline void let_next_begin() {}
inline void wait_for_previous() {}
inline void begin_dependent() {}

template <typename... Parameters, typename... Arguments>
void start_kernel(const Start& start, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared, Arguments&&... arguments) {
  emulator::launch(start.stream, {grid, block, shared,
                                  [kernel, kept = std::tuple<std::decay_t<Parameters>...>(arguments...)] { std::apply(kernel, kept); }});
}

}  // namespace tandem::cuda
