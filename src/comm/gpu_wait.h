// GpuWait: how a rank waits for its GPU, or for NCCL, while others may be dead, stopped or late.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "comm/group.h"

namespace tandem {

// For one wait, by the thread that waits.
class GpuWait {
 public:
  // `what` is waited for, for messages. The limit counts anew from every collective that the laggard begins and from its marks.
  GpuWait(Group& group, std::chrono::nanoseconds limit, std::string what);
  // To be called often. Throws what has ended the world; ends it with Error(timeout) naming the rank that holds the others up once that
  // has shown no progress for the limit.
  void look();

 private:
  int find_laggard() const;
  bool somebody_is_ahead_of(const Progress& laggard) const;
  bool counts_each() const;
  [[noreturn]] void time_out(const Progress& last);

  Group& whole_;  // as it was given
  Group& group_;  // that carries what lies on the host
  Deadline deadline_;
  std::string what_;
  int laggard_ = -1;            // rank in the group
  std::uint64_t sequence_ = 0;  // of the laggard
  std::int64_t last_sign_ns_ = 0, next_look_ns_ = 0;
};

}  // namespace tandem
