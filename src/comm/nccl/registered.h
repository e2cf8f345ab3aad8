// Memory of GPUs registered with a communicator of NCCL.
//
// NCCL wants all ranks of a call to give it registered memory, or none, and operands equally far into it. So ranks tell one another what
// each has and register what they all can: a window (memory from ncclMemAlloc(), of equal size, in the same order on all ranks), else a
// buffer, else nothing. The environment's TANDEM_NCCL_REGISTER says what at most: "windows", "buffers", "none" (as where it is not set).
#pragma once

#include <memory>

#include "comm/gpu_group.h"
#include "comm/nccl/communicator.h"
#include "device/device.h"

namespace tandem::nccl {

// By ncclMemAlloc(), for the thread's current GPU; null where NCCL has no windows or none are wanted. Thread-safe.
std::shared_ptr<DeviceAllocator> window_allocator();

// As GpuGroup::register_memory(), for `group`, whose communicator `comm` is. Error(aborted) and what ends the wait; with it the world ends.
std::shared_ptr<Registration> register_on_all(Group& group, const std::shared_ptr<Communicator>& comm,
                                              std::shared_ptr<const DeviceMemory> memory, std::shared_ptr<Registration> before,
                                              Deadline deadline);

}  // namespace tandem::nccl
