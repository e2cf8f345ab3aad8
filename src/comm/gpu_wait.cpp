#include "comm/gpu_wait.h"

#include <algorithm>

#include "comm/gpu_group.h"
#include "comm/shm/shm_group.h"
#include "core/check.h"

namespace tandem {
namespace {

constexpr std::int64_t kLookNs = 2'000'000;

Group& control_of(Group& group) {
  auto* gpu = dynamic_cast<GpuGroup*>(&group);
  return gpu ? gpu->control() : group;
}

}  // namespace

GpuWait::GpuWait(Group& group, std::chrono::nanoseconds limit, std::string what)
    : whole_(group),
      group_(control_of(group)),
      deadline_(Deadline::after(limit)),
      what_(std::move(what)),
      next_look_ns_(monotonic_ns() + kLookNs) {}

// The rank that has begun the fewest collectives: the others are in one that it has not begun. Among equals another one than this.
int GpuWait::find_laggard() const {
  int laggard = group_.rank();
  std::uint64_t fewest = group_.progress(laggard).sequence;
  for (int r = 0; r < group_.size(); ++r)
    if (const std::uint64_t begun = group_.progress(r).sequence; begun < fewest) laggard = r, fewest = begun;
  return laggard;
}

void GpuWait::look() {
  const std::int64_t now = monotonic_ns();
  if (now < next_look_ns_) return;
  next_look_ns_ = now + kLookNs;
  whole_.throw_if_failed();
  const int laggard = find_laggard();
  const Progress last = group_.progress(laggard);
  if (laggard_ >= 0 && (laggard != laggard_ || last.sequence != sequence_)) last_sign_ns_ = now;
  laggard_ = laggard;
  sequence_ = last.sequence;
  last_sign_ns_ = std::max(last_sign_ns_, last.marked_at_ns);
  if (deadline_.counted_from(last_sign_ns_).expired()) time_out(last);
}

void GpuWait::time_out(const Progress& last) {
  const double seconds = std::chrono::duration<double>(deadline_.limit()).count();
  const int me = group_.members()[static_cast<std::size_t>(group_.rank())], other = group_.members()[static_cast<std::size_t>(laggard_)];
  const Progress mine = group_.progress(group_.rank());
  std::string text;
  if (!mine.attached) {
    text = fmt::format("{} did not end within {:.1f} s; which rank is late cannot be told, the ranks' communicator is no longer usable",
                       what_, seconds);
  } else if (other == me) {
    text = fmt::format("{} did not end within {:.1f} s, though no other rank is behind", what_, seconds);
  } else {
    text = fmt::format("nothing came from it for {:.1f} s", seconds);
    text += last.step < 0 ? std::string("; it has completed no step") : fmt::format("; its last completed step is {}", last.step);
    text += fmt::format(" and it has begun {} collectives; rank {} has begun {} and waits in {}", last.sequence, me, mine.sequence, what_);
  }
  auto* shm = dynamic_cast<shm::ShmGroup*>(&group_);
  if (shm) shm->give_up(ErrorCode::timeout, other, text);
  group_.abort(text);
  throw Error(ErrorCode::timeout, text, {}, mine.attached ? other : -1);
}

}  // namespace tandem
