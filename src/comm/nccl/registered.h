// Memory of GPUs registered with a communicator of NCCL.
//
// NCCL wants all ranks of a call to give it registered memory, or none, and operands equally far into it. So ranks tell one another what
// each has and register it where it is alike. The environment's TANDEM_NCCL_REGISTER says whether at all: "buffers", "none" (as where it is
// not set).
#pragma once

#include <memory>

#include "comm/gpu_group.h"
#include "comm/nccl/communicator.h"
#include "device/device.h"

namespace tandem::nccl {

// As GpuGroup::register_memory(), for `group`, whose communicator `comm` is. Error(invalid_argument) for another word in the environment,
// and what ends the wait.
std::shared_ptr<Registration> register_on_all(Group& group, const std::shared_ptr<Communicator>& comm,
                                              std::shared_ptr<const DeviceMemory> memory, std::shared_ptr<Registration> before,
                                              Deadline deadline);

}  // namespace tandem::nccl
