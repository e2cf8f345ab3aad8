// CallLog: whether the ranks of a group make the same calls in the same order, where the calls themselves cannot tell, as those of GPUs.
#pragma once

#include <cstdint>
#include <string_view>

namespace tandem::shm {

class ShmGroup;

// Of one rank, used by one thread at a time. All ranks of a group have one at a time, or none, and exchange something between making it and
// the first call.
class CallLog {
 public:
  // `group` outlives it. Does nothing where it is null.
  explicit CallLog(ShmGroup* group);

  // This rank is about to make its next call. `what` is the same on all ranks if their calls agree, and words for a message. Ends the world
  // with Error(mismatch) naming both ranks and calls where another rank has begun another call in its place: of two ranks that disagree the
  // later one finds out before it does anything. Never waits; one store, and one load per rank.
  void begin(std::string_view what);
  // That call did not come about.
  void undo();
  // From now on this rank makes calls that are not told here, so it is not compared any more.
  void leave();

 private:
  void clear();
  [[noreturn]] void disagree(int other);

  ShmGroup* group_;
  bool left_ = false;
  std::uint64_t number_ = 0, chain_ = 0, chain_before_ = 0;
};

}  // namespace tandem::shm
