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

bool GpuWait::somebody_is_ahead_of(const Progress& laggard) const {
  for (int r = 0; r < group_.size(); ++r)
    if (group_.progress(r).sequence > laggard.sequence) return true;
  return false;
}

bool GpuWait::counts_each() const {
  const auto* gpu = dynamic_cast<const GpuGroup*>(&whole_);
  return !gpu || gpu->counts_each();
}

void GpuWait::time_out(const Progress& last) {
  const double seconds = std::chrono::duration<double>(deadline_.limit()).count();
  const int me = group_.members()[static_cast<std::size_t>(group_.rank())], other = group_.members()[static_cast<std::size_t>(laggard_)];
  const Progress mine = group_.progress(group_.rank());
  const bool each = counts_each(), known = mine.attached && (each || somebody_is_ahead_of(last));
  std::string text;
  if (!mine.attached) {
    text = fmt::format("{} did not end within {:.1f} s; which rank is late cannot be told, the ranks' communicator is no longer usable",
                       what_, seconds);
  } else if (!known) {
    text = fmt::format(
        "{} did not end within {:.1f} s; which rank is late cannot be told: all have counted as many collectives, but of a "
        "run's not each is counted",
        what_, seconds);
  } else if (other == me) {
    text = fmt::format("{} did not end within {:.1f} s, though no other rank is behind", what_, seconds);
  } else {
    text = fmt::format("nothing came from it for {:.1f} s", seconds);
    text += last.step < 0 ? std::string("; it has completed no step") : fmt::format("; its last completed step is {}", last.step);
    const char* const counted = each ? "begun" : "counted";
    text += fmt::format(" and it has {} {} collectives; rank {} has {} {} and waits in {}", counted, last.sequence, me, counted,
                        mine.sequence, what_);
  }
  auto* shm = dynamic_cast<shm::ShmGroup*>(&group_);
  const int named = known ? other : -1;
  if (shm) shm->give_up(ErrorCode::timeout, named, text);
  group_.abort(text);
  throw Error(ErrorCode::timeout, text, {}, named);
}

}  // namespace tandem
