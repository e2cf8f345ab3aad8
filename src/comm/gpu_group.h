// Groups whose collectives run in the streams of GPUs. Each is made of a Group that the ranks already have, which goes on to carry what
// lies on the host: rendezvous, exchange, marks, progress, abort, and calls without a stream.
#pragma once

#include <memory>
#include <string>

#include "comm/group.h"

namespace tandem {

class Device;

struct GpuGroupOptions {
  // "nccl", "peer", or empty for what serves best where it can: peer where all GPUs reach each other, else nccl. The environment's
  // TANDEM_GPU_GROUP says the same where this is empty.
  std::string backend;
};

// Collective. Null where no backend can serve these ranks, and then on all of them, with the reason in `why`; Error where the one asked
// for by name cannot. `control` is borrowed and outlives it. Each rank has a GPU of its own, else Error(invalid_argument) naming two ranks that share one.
std::unique_ptr<Group> make_gpu_group(Group& control, Device& device, const GpuGroupOptions& options, std::string* why);

}  // namespace tandem
