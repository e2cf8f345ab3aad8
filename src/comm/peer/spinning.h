// The kernels that wait for other ranks: whoever starts one names it through spinning<kernel>(), which is all that it takes to have it
// loaded before any rank of a group can wait. CUDA else loads a kernel when it first runs, and may wait for what runs on the GPU, or keep
// another thread out of CUDA meanwhile: a rank that others wait for would wait for them. For files that compile with and without nvcc.
#pragma once

#include <vector>

namespace tandem::peer {

// Of this program, from before main() on.
const std::vector<const void*>& spinning_kernels();
// All of them, on the thread's current GPU; at once where they are. Error(unsupported) where the program has no code for it.
void load_spinning_kernels();

// True; before main().
bool list_spinning(const void* kernel);
template <auto kKernel>
inline const bool is_listed = list_spinning(reinterpret_cast<const void*>(kKernel));

template <auto kKernel>
auto spinning() {
  static_cast<void>(is_listed<kKernel>);
  return kKernel;
}

}  // namespace tandem::peer
