// Runs a sharded program for all ranks of its mesh in lockstep: plain evaluators, collectives as plain moves of elements.
#pragma once

#include "passes/evaluate.h"

namespace tandem::testing {

// `inputs` are whole; blocks are cut, and the outputs put together again, by the shardings of the local graph. Throws
// Error(internal) where ranks that must hold the same block of an output differ.
Tensors evaluate_ranks(const Graph& local, const Tensors& inputs, const SymbolValues& symbols);

// A rank's block of a tensor, blocks of ⌈size / ranks⌉ per factor, zeros past the end.
Tensor cut_block(const Tensor& whole, const Type& global, const Sharding& sharding, const Mesh& mesh, int rank,
                 const SymbolValues& symbols);

}  // namespace tandem::testing
