// What a collective must give, element by element, written down without regard to how it is done.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/group.h"
#include "core/tensor.h"

namespace tandem {

// Fresh random input of one rank; any rank can make any other's. Small magnitudes, so that no reduction overflows a float.
Tensor random_input(DType dtype, const Shape& shape, int rank, std::uint64_t seed);

// Throws Error(internal) naming the first element of `out` that is not what rank `rank` of a group of inputs.size() ranks must get.
// Moves must be exact; float reductions must lie within the rounding of an f32 accumulation (f64: f64) and of the dtype.
void check_output(const CollectiveCall& call, int rank, const std::vector<Tensor>& inputs, const Tensor& out);

// Makes all inputs, runs the call on `group`, poisons and checks the output; gives it back. Shape, dtype and kind come from `call`.
Tensor run_and_check(Group& group, CollectiveCall call, const Shape& shape, std::uint64_t seed, bool in_place = false);

}  // namespace tandem
