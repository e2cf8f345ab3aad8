// Communicator: an ncclComm_t that ranks made together, with every wait bounded.
//
// Communicators do not block: a call that NCCL has not finished is waited for here, where a deadline and the state of the world are looked
// at. Aborting one while graphs that hold its kernels exist, or while kernels of another one are stuck, does not return; so all that were
// made from one another are aborted at once, in a thread of their own. Whoever drops the last use of one, when its graphs are gone, waits
// for that, so that what NCCL had on the GPU has been given back.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "comm/group.h"
#include "comm/nccl/api.h"
#include "comm/nccl/aside.h"

namespace tandem::nccl {

class Communicator;

// Those that were split from one another, with the first.
class Family {
 public:
  // Begins to abort all of them, and returns at once. Callable from any thread, again without effect.
  void abort();
  bool aborted() const { return aborted_; }
  // After abort(), when no graph holds their kernels any more: whether NCCL has given them back. Waits for it, a few seconds at most for
  // all calls together; true as well where nothing is to be given back.
  bool has_given_back();
  // Calls `work` on one of them in a thread of its own and waits for it; false where they are aborted, for then none is to be touched, or
  // where it does not end within the limit. abort() gives such work a moment to end before it begins.
  bool beside(std::function<void()> work, std::chrono::nanoseconds limit);
  // What NCCL says of one of them; null once they are aborted, for then it is not to be asked.
  std::optional<ncclResult_t> state_of(ncclComm_t comm);

 private:
  friend class Communicator;
  void add(ncclComm_t comm);
  bool remove(ncclComm_t comm);  // false: they are aborted, and so is it

  std::mutex mutex_;
  std::vector<ncclComm_t> comms_;
  std::atomic<bool> aborted_{false};
  std::vector<std::shared_ptr<Aside>> beside_;
  std::shared_ptr<Aside> abort_;          // under way or done
  std::optional<Deadline> give_back_by_;  // from the first time that somebody waited
};

// After NCCL has told of trouble: throws what names a rank whose process is gone, if one is, which may show a moment later.
void name_the_dead(Group& control);

class Communicator {
 public:
  // Collective over the ranks of `control`, whose GPU is the thread's current one. Throws what ends the wait.
  static std::unique_ptr<Communicator> create(Group& control, Deadline deadline);
  // Collective over the ranks of this one; null where `color` is negative. `control` is this one's.
  std::unique_ptr<Communicator> split(Group& control, int color, int key, Deadline deadline);
  // One of the caller's, which stays its own. It may block, so what is called on it is called in another thread.
  static std::unique_ptr<Communicator> borrow(ncclComm_t comm);
  // Local; waits a short time for NCCL to take it apart, longer where it was aborted, then leaves that to a thread. No graph may hold its
  // kernels.
  ~Communicator();
  Communicator(const Communicator&) = delete;

  ncclComm_t handle() const { return comm_; }
  const std::shared_ptr<Family>& family() const { return family_; }
  // After a call of NCCL on this communicator: until NCCL has done it. What goes wrong there ends the world, with an error that names a
  // rank whose process is gone if that is the reason.
  void settle(ncclResult_t result, const char* what, Group& control, std::chrono::nanoseconds limit);

 private:
  Communicator() = default;
  ncclResult_t state();
  // Until `done` gives true. What ends the wait, or `done` throws, ends the world.
  template <typename Done>
  void wait_until(const Done& done, const char* what, Group& control, std::chrono::nanoseconds limit);
  void wait_for_part(ncclResult_t result, ncclComm_t& made, int color, Group& control, std::chrono::nanoseconds limit);
  void split_aside(Group& control, int color, int key, ncclComm_t& made, std::chrono::nanoseconds limit);

  ncclComm_t comm_ = nullptr;
  std::shared_ptr<Family> family_;
  bool borrowed_ = false;
};

}  // namespace tandem::nccl
