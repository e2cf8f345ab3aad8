// How processes that nobody started for each other find their common ShmRegion.
#pragma once

#include <string>

#include "comm/shm/region.h"

namespace tandem {

// Rank 0 makes the region and hands it to the others, over a socket whose name only processes of this host and user can use. Throws
// Error(timeout) naming ranks that did not come, Error(mismatch) where the ranks disagree about who they are.
std::shared_ptr<ShmRegion> meet(const std::string& name, int rank, int size, Deadline deadline);

}  // namespace tandem
