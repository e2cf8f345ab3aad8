// What a kernel of the GPU finds wrong while it runs: an index outside its extent, or an integer (`index`) divided by zero. It then reads
// and writes nothing outside its tensors, leaves the fault in the word of its kind, and goes on; CudaStream::wait() throws it. For host and
// device code.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace tandem::cuda {

// The op that reports; runtime code has their names in this order.
enum class FaultKind : int { gather, gather_nd, gather_elements, scatter_nd, division };
inline constexpr int kFaultKinds = 5;

// Written whole by one 16-byte store, so that of several faults any one stays.
struct alignas(16) Fault {
  std::int64_t index;
  std::int64_t past;  // the extent + 1; 0: nothing is wrong
};

__device__ inline void report_index(Fault* word, std::int64_t index, std::int64_t extent) {
  *reinterpret_cast<longlong2*>(word) = make_longlong2(index, extent + 1);
}

}  // namespace tandem::cuda
