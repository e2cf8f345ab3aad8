// What the gathers of GPUs make of their calls on the host.
#pragma once

#include <optional>
#include <string>

#include "ops/aligned_cuda.h"
#include "ops/gather/gather_cuda.h"
#include "ops/kernel.h"

namespace tandem::cuda {

// `rows` blocks of `inner` elements, at most `most` bytes at once. Error(unsupported) where there are more than one kernel counts.
BlockMove block_move(DType dtype, std::int64_t inner, std::int64_t rows, std::int64_t most);

// Tuples (operand 1) that name blocks of operand 0, after `batch` dimensions that both share.
TupleView tuple_view(const OpCall& call, std::size_t batch, std::int64_t most);
Plans<TupleView> tuple_views(const OpCall& call, std::size_t batch);

std::optional<std::string> refuse_parts_of_bytes(const OpCall& call);
// The same, and tuples longer than kTupleLength.
std::optional<std::string> refuse_tuples(const OpCall& call);

}  // namespace tandem::cuda
