// How a RankContext waits for its device, and what it does when that does not end: nothing waits without a deadline, and nothing is freed
// that the device may still use.
#include "comm/gpu_wait.h"
#include "core/stop.h"
#include "runtime/context_bound.h"
#include "runtime/context_marks.h"

namespace tandem {
namespace {

constexpr std::chrono::nanoseconds kDrain = std::chrono::seconds(4), kForEver = std::chrono::hours(24 * 365);

}  // namespace

RankContext::~RankContext() {
  const std::function<bool()> never;
  const StopScope scope(never);  // a caller that stops does not make the device stop
  try {
    const OnDevice on_device(device_);
    if (!others()) wait_until_done();  // leaving a group ends what waits for other ranks
    leave_group();
  } catch (const Error&) {
    abandon();
  }
}

// What the device may still use is kept until its work ends; groups for ever, for the caller's group, from which they came, goes now.
void RankContext::abandon() noexcept {
  struct Kept {
    std::shared_ptr<const RankEngine> engine;
    std::shared_ptr<Joined> joined;
    std::shared_ptr<Stream> stream;
    std::shared_ptr<AuxiliaryStreams> auxiliary;
    std::shared_ptr<Event> done;
    std::shared_ptr<Marks> marks;
    std::shared_ptr<DeviceMemory> arena;
    std::shared_ptr<WeightRing> ring;
    std::map<Group*, std::shared_ptr<Registration>> registered;
    std::list<std::shared_ptr<Bound>> bounds;
  };
  if (device_.lost()) {
    auto kept = std::make_shared<Kept>(engine_, joined_, stream_, auxiliary_, std::move(done_), std::move(marks_), arena_, ring_,
                                       std::move(registered_), std::move(bounds_));
    if (joined_ && (joined_->own || joined_->gpu)) new std::shared_ptr<Kept>(kept);
    try {
      kept->done->wait(*stream_);  // what callers' streams have to do
    } catch (const Error&) {       // the context of the GPU is broken
    }
    device_.keep_until_done(*stream_, std::move(kept));
  }
  leave_group();
}

// Once the world has ended, or is to: what the stream still waits for is ended too. A communicator is gone when its kernels have left the
// stream and no graph holds them any more, so the recordings go.
void RankContext::end_streams(const Error& error) noexcept {
  Group* group = others();
  if (!group) return;
  try {
    if (error.code() == ErrorCode::timeout || error.code() == ErrorCode::interrupted) group->abort(error.message());
    group->throw_if_failed();
    return;  // the others have no part in what went wrong
  } catch (const Error& ended) {
    group->abort(ended.message());
  }
  try {
    const std::function<bool()> never;
    const StopScope scope(never);
    stream_->wait(Deadline::after(kDrain));
  } catch (const Error&) {  // of what the stream was doing, which is known
  }
  for (const auto& bound : bounds_) bound->recorded.clear();
}

void RankContext::guarded(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    end_streams(error);
    throw;
  }
}

// With other ranks: as long as the one that holds the others up makes progress.
void RankContext::wait_with_others(const std::function<void(Deadline)>& wait) try {
  if (!others()) return wait(Deadline::after(options_.step_deadline));
  GpuWait others(*group_, options_.step_deadline, "the work of its GPU");
  const std::function<bool()>* outer = StopScope::current();
  const std::function<bool()> look = [&] {
    if (outer && *outer && (*outer)()) return true;
    others.look();
    return false;
  };
  const StopScope scope(look);
  wait(Deadline::after(kForEver));
} catch (const Error& error) {
  throw located(error);
}

// A wait that took too long with the place that the device has not passed.
Error RankContext::located(const Error& late) {
  if (late.code() != ErrorCode::timeout || !late.node().empty()) return late;
  try {
    const Marks::Place place = marks_->find();
    const Error said =
        place.words.empty() ? late : Error(late.code(), fmt::format("{}, {}", late.message(), place.words), late.node(), late.rank());
    return place.step ? said.at_node(label(program().steps[*place.step])) : said;
  } catch (const Error&) {
    return late;
  }
}

void RankContext::wait_for_stream() {
  wait_with_others([&](Deadline deadline) { stream_->wait(deadline); });
}

// With what was given to streams of the caller's; before memory goes back, which waits for the device without a deadline.
void RankContext::wait_until_done() {
  if (device_.is_host()) return;
  const OwnStream own(*stream_);
  done_->wait(*stream_);
  wait_for_stream();
}

}  // namespace tandem
