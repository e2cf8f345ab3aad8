// How many groups the kv heads of an attention by keys go in, so that attention to one group goes on while the next one's keys and values
// travel.
#pragma once

#include "ops/attention/ranks_cpu.h"

namespace tandem::attention {

struct KeyGroups {
  int count = 1;
  int blocks = 4;  // of kernels that push beside attention, which needs the other multiprocessors
};

// For one rank's rows against the columns of all. `group_seconds`: what one more group costs, in kernels. 1 where nothing is gained; the
// same on all ranks.
KeyGroups key_groups_of(const Spread& spread, double group_seconds, int multiprocessors, int most);

}  // namespace tandem::attention
