// Links: how the ranks of a group on one host hand each other descriptors, and notice that one's process has ended.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "comm/group.h"
#include "comm/shm/meeting_socket.h"
#include "core/descriptor.h"

namespace tandem::peer {

// Collective: throws on all ranks if any has some trouble, naming the first that has: Error(out_of_memory) if that is its trouble, else
// Error(unsupported).
void agree(Group& group, const std::optional<Error>& trouble, Deadline deadline);
// Collective: runs `work` on this rank; if it throws an Error on any rank, throws on all of them as agree() does.
template <typename Work>
void all_do(Group& group, Deadline deadline, const Work& work) {
  std::optional<Error> trouble;
  try {
    work();
  } catch (const Error& error) {
    trouble = error;
  }
  agree(group, trouble, deadline);
}

class Links {
 public:
  // Collective; throws on all ranks or on none. The group is used in calls of this object only.
  Links(Group& group, Deadline deadline);

  bool is_here(int rank) const { return processes_[static_cast<std::size_t>(rank)] == processes_[static_cast<std::size_t>(rank_)]; }
  // Collective: every rank's descriptor, by rank, a copy of one's own too. `descriptor` stays the caller's.
  std::vector<Descriptor> exchange(Group& group, int descriptor, Deadline deadline);
  // Tells the others that this process goes on without the group; their departed() is silent about it.
  void leave() noexcept;
  // Waits up to `milliseconds` for a sign. A rank whose process has ended without leave(), if there is one; -1 if not.
  int departed(int milliseconds);

 private:
  struct Peer {
    shm::MeetingSocket socket;
    bool left = false;
  };
  Peer& peer(int rank) { return peers_[static_cast<std::size_t>(rank)]; }
  void meet(const std::vector<std::string>& names, shm::MeetingSocket& door, Deadline deadline);

  int rank_;
  std::vector<std::uint64_t> processes_;  // by rank: a number that each process draws
  std::vector<Peer> peers_;               // by rank; no socket to ranks of this process
};

}  // namespace tandem::peer
