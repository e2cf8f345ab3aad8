// Ranks that already have a communicator of NCCL. Public; belongs to comm.
#pragma once

#include <memory>

#include "tandem/group.h"

struct ncclComm;  // what ncclComm_t points to

namespace tandem {

// A group of the ranks of a communicator that the caller made, on one host or several, for Context::set_communicator() of an engine for
// GPUs. Local, never waits. The communicator is borrowed: it outlives the group, is never destroyed by us, and may be given again. Contexts
// split off one of their own at their collective point and leave this one alone after that, so the caller may use it before and after, but
// not while they do. Where a rank does not come to that point, Error(timeout) says that the communicator is of no more use: it is aborted
// then. Throws Error(invalid_argument) for one that NCCL does not know, or no more; Error(unsupported) in programs without CUDA. The group
// carries memory of GPUs: run() without a stream, send() and recv() are Error(unsupported).
std::unique_ptr<Group> group_from_nccl(ncclComm* communicator);

}  // namespace tandem
