// Which code a GPU runs: machine code serves its own generation from its own compute capability on, text (PTX) every newer GPU, by the
// compiler in the driver.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace tandem::cuda {

// Of what kernels were compiled for, as CMake has it ("80-real, 90a-real, 100": machine code for the first two, machine code and text for
// the last), what a GPU of compute capability sm / 10 takes: 100 where it runs code for 10.0, 0 where there is nothing for it.
int code_for(std::string_view architectures, int sm);
// The same of this program's own kernels.
int kernels_for(int sm);

// What a compiler that knows these (80, 90, …, ascending) is to compile for: "sm_103"; where it does not know the GPU machine code for an
// older one of its generation, "sm_100", else text, "compute_100". Empty where the GPU is older than all of them.
std::string architecture_for(std::span<const int> known, int sm);

}  // namespace tandem::cuda
