// PeerGroup: collectives of GPUs of one host, by kernels that push into memory of the peers' GPUs. layout.h says how.
//
// Kernels that wait are bounded: each gives up once any rank has ended the group, or twice the call's deadline has passed without an
// answer. A thread of this object watches: it ends the group where a kernel of this rank gave up, a process of a peer has ended, or the
// control group has failed. After that outputs are worth nothing, and throw_if_failed() and run() throw the reason.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "comm/gpu_group.h"
#include "comm/nccl/progress.h"
#include "comm/peer/gpu_memory.h"
#include "comm/peer/launch.h"
#include "comm/peer/links.h"
#include "comm/peer/pages.h"
#include "comm/peer/room.h"
#include "comm/peer/window.h"

namespace tandem::peer {

struct PeerOptions {
  int blocks = 0;          // of a kernel, at most kLanes; 0: what the GPUs can run at once. The least of all ranks counts
  bool share_gpu = false;  // ranks may share a GPU, which is for tests: their kernels must fit on it together
  bool early = false;      // kernels may start before what is before them in the stream has ended: it must be a kernel
  std::chrono::nanoseconds limit = kStepDeadline;  // of waits in calls without a deadline
};

// Collective. Null where these ranks cannot be served, and then on all of them, with the reason in `why`. The device is the thread's
// current one; `control` is borrowed and outlives the group.
std::unique_ptr<GpuGroup> make_peer_group(Group& control, Device& device, Deadline deadline, std::string* why,
                                          const PeerOptions& options = {});

// The same for ranks that may choose among backends.
extern const GpuBackend kBackend;

class PeerGroup final : public GpuGroup {
 public:
  // Collective; throws on all ranks or on none.
  PeerGroup(Group& control, Device& device, Deadline deadline, const PeerOptions& options);
  PeerGroup(std::unique_ptr<Group> control, Device& device, Deadline deadline, const PeerOptions& options);
  // No kernel of this rank may be running in the group.
  ~PeerGroup() override;

  std::string_view backend() const override { return "peer"; }
  std::optional<std::string> refusal(const CollectiveCall& call) const override;
  std::unique_ptr<Group> split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline) override;
  void throw_if_failed() override;
  void abort(std::string_view reason) override;

  // For kernels elsewhere that exchange by themselves (exchange.cuh): the group's view. Whoever waits for the stream is to be told of
  // trouble after `limit`, and ends the waits of kernels; where nobody does, they end after twice the time.
  View view(std::chrono::nanoseconds limit) const;
  int blocks() const { return blocks_; }
  // Collective, on all ranks with the same numbers of bytes in the same order: a room of at least so many, which may be in use by others in
  // the same stream too. It may allocate, and the device is the thread's current one. Throws on all ranks or on none, Error(out_of_memory)
  // where one has too little, and then the group serves on. Whoever holds it lets go of it before the group ends.
  std::shared_ptr<Room> room(std::size_t there, std::size_t back, Deadline deadline);
  // All-reduce with what follows it; `aligned` and `blocks` are set here. Whether it can depends on nothing that ranks may differ in.
  bool can_reduce_and_norm(DType dtype, std::int64_t length) const;
  // Whether that is faster for so many bytes than an all-reduce and a norm of one's own.
  bool one_kernel_pays(std::int64_t bytes) const;
  void reduce_and_norm(ReduceAndNorm work, void* stream, std::chrono::nanoseconds limit);
  // Whether throw_if_failed() would throw what ended this group itself. Any thread.
  bool has_failed() const { return pages_->ended() || pages_->gave_up(rank()); }

 protected:
  void enqueue(const CollectiveCall& call) override;

 private:
  void set_up(Deadline deadline);
  int agreed_blocks(Deadline deadline);
  void watch();
  void watch_once();
  [[noreturn]] void throw_failure();
  int laggard() const;
  // collectives.cpp
  void all_reduce(const View& view, const CollectiveCall& call, std::size_t bytes);
  void all_reduce_words(const View& view, const CollectiveCall& call);
  void all_reduce_any(const View& view, const CollectiveCall& call, std::size_t bytes);
  void reduce_to(const View& view, const CollectiveCall& call, std::size_t bytes);
  void reduce_scatter(const View& view, const CollectiveCall& call, std::size_t bytes);
  void gather(const View& view, const CollectiveCall& call, std::size_t bytes);
  void all_to_all(const View& view, const CollectiveCall& call, std::size_t bytes);
  void from_root(const View& view, const CollectiveCall& call, std::size_t bytes);
  void shift(const View& view, const CollectiveCall& call, std::size_t bytes);

  Device& device_;
  PeerOptions options_;
  int blocks_ = 0;
  double clocks_per_second_ = 2e9;
  std::unique_ptr<Links> links_;
  std::unique_ptr<Pages> pages_;
  std::unique_ptr<Window> window_;
  std::shared_ptr<Room> room_;                    // the last one made
  std::shared_ptr<nccl::ProgressWord> progress_;  // null where the control group has none
  std::unique_ptr<State, FreeOnGpu> state_;
  std::atomic<bool> stops_{false};
  std::thread watcher_;
};

}  // namespace tandem::peer
