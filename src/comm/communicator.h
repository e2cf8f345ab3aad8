// What a Communicator stands for: a world that is joined when it is first used.
#pragma once

#include <mutex>

#include "comm/shm/region.h"
#include "tandem/comm.h"

namespace tandem {

struct Communicator::State {
  int rank = 0, size = 1, local_rank = 0;
  std::string name;                    // of the meeting place; empty where the region is there from the start
  std::mutex mutex;                    // guards what follows
  std::shared_ptr<ShmRegion> region;
  std::unique_ptr<Group> world;

  // Collective: a group of all ranks for one user, who may outlive the Communicator. Ranks ask for groups in the same order.
  std::unique_ptr<Group> join(Deadline deadline);
};

}  // namespace tandem
