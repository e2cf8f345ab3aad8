// run_ranks: a function on N ranks that are threads of this process, for embedding, tests and benchmarks.
#pragma once

#include <functional>

#include "comm/group.h"
#include "comm/shm/region.h"

namespace tandem {

// Calls body(group) on `world` threads and returns when all have ended. The first failure aborts the other ranks and is thrown again,
// with its rank; failures that only follow from another rank's are not counted as first.
void run_ranks(int world, const std::function<void(Group&)>& body, const ShmOptions& options = {});

}  // namespace tandem
