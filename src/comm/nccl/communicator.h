// Communicator: an ncclComm_t that ranks made together, with every wait bounded.
//
// Communicators do not block: a call that NCCL has not finished is waited for here, where a deadline and the state of the world are looked
// at. Aborting one while graphs that hold its kernels exist, or while kernels of another one are stuck, may not return; so all that were made from one
// another are aborted at once, in a thread of their own.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/group.h"
#include "comm/nccl/api.h"

namespace tandem::nccl {

class Communicator;

// Those that were split from one another, with the first.
class Family {
 public:
  // Begins to abort all of them, and returns at once. Callable from any thread, again without effect.
  void abort();
  bool aborted() const { return aborted_; }

 private:
  friend class Communicator;
  void add(ncclComm_t comm);
  bool remove(ncclComm_t comm);  // false: they are aborted, and so is it

  std::mutex mutex_;
  std::vector<ncclComm_t> comms_;
  std::atomic<bool> aborted_{false};
};

class Communicator {
 public:
  // Collective over the ranks of `control`, whose GPU is the thread's current one. Throws what ends the wait.
  static std::unique_ptr<Communicator> create(Group& control, Deadline deadline);
  // Collective over the ranks of this one; null where `color` is negative. `control` is this one's.
  std::unique_ptr<Communicator> split(Group& control, int color, int key, Deadline deadline);
  // One of the caller's, which stays its own. It may block, so what is called on it is called in another thread.
  static std::unique_ptr<Communicator> borrow(ncclComm_t comm);
  // Local; waits a short time for NCCL to take it apart, then leaves that to a thread.
  ~Communicator();
  Communicator(const Communicator&) = delete;

  ncclComm_t handle() const { return comm_; }
  const std::shared_ptr<Family>& family() const { return family_; }
  // After a call of NCCL on this communicator: until NCCL has done it.
  void settle(ncclResult_t result, const char* what, Group& control, std::chrono::nanoseconds limit);

 private:
  Communicator() = default;
  void wait_for_part(ncclResult_t result, ncclComm_t& made, int color, Group& control, std::chrono::nanoseconds limit);
  void split_aside(Group& control, int color, int key, ncclComm_t& made, std::chrono::nanoseconds limit);

  ncclComm_t comm_ = nullptr;
  std::shared_ptr<Family> family_;
  bool borrowed_ = false;
};

}  // namespace tandem::nccl
