// Kernels on several ranks: threads of this process, or, with TANDEM_TEST_RANKS_AS=processes in the environment, processes that all run the
// same tests, of which this one is a rank as Group::from_env() says.
#pragma once

#include <functional>
#include <vector>

#include "comm/group.h"
#include "core/tensor.h"

namespace tandem::test {

// What `body` gives on each of `ranks` ranks, by rank: as many tensors of the same shapes on all. Rows for a GPU get a group of GPUs where
// each rank has one, else the ranks' own.
std::vector<std::vector<Tensor>> results_of_ranks(int ranks, const std::function<std::vector<Tensor>(Group&)>& body);

}  // namespace tandem::test
