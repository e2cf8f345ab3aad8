// How rank processes that nobody started for each other find their common memory.
#pragma once

#include <memory>
#include <string>

#include "comm/shm/region.h"

namespace tandem::shm {

struct Meeting {
  int rank = 0, size = 1;
  std::string name;   // of the socket: equal for the ranks of one run, for nobody else
  std::string place;  // the same for people
  Waiting waiting;
};

// Rank 0 listens, sees who comes, and hands out the memory once all are there. Until then a rank that ends is forgotten, so that another
// process may come in its place. Throws as Group::join().
std::unique_ptr<Group> meet(const Meeting& meeting);

}  // namespace tandem::shm
