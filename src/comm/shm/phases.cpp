// Arriving, waiting, and what is said when a wait does not end.
#include <sched.h>

#include <algorithm>

#include "comm/shm/futex.h"
#include "comm/shm/shm_group.h"
#include "comm/shm/stream_copy.h"
#include "core/check.h"

namespace tandem::shm {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// How long to spin before sleeping. Waking a sleeper takes tens of microseconds, so a rank with a core of its own spins longer than
// that; without one it gives its core away early, for the rank it waits for may need it.
constexpr std::int64_t kSpinOwnCore = 40'000, kSpinShared = 1'000;       // ns
constexpr std::int64_t kYieldOwnCore = 150'000, kYieldShared = 100'000;  // ns, thereafter
constexpr std::chrono::nanoseconds kFirstSlice = milliseconds(1), kLastSlice = milliseconds(20);

bool reached(std::uint64_t value, std::uint32_t count) { return static_cast<std::int32_t>(static_cast<std::uint32_t>(value) - count) >= 0; }

CollectiveCall call_of(const Descriptor& d) {
  CollectiveCall call = {.kind = d.kind,
                         .dtype = d.dtype,
                         .dims = std::span(d.dims, static_cast<std::size_t>(std::min(d.rank, 8))),
                         .axis = d.axis,
                         .split_axis = d.split_axis,
                         .concat_axis = d.concat_axis,
                         .root = d.root,
                         .shift = d.shift};
  if (d.reduction >= 0) call.reduction = static_cast<Reduction>(d.reduction);
  return call;
}

std::string to_string(const Descriptor& d) {
  switch (d.activity) {
    case Activity::none: return "nothing";
    case Activity::collective: return tandem::to_string(call_of(d));
    case Activity::exchange: return "exchange";
    case Activity::send: return "send";
    case Activity::receive: return "recv";
  }
  return "";
}

}  // namespace

void ShmGroup::synchronise() {
  ++phase_;
  raise(cell(rank_).arrived, phase_, hash_);
  for (int r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    const std::uint64_t value = await(cell(r).arrived, phase_, r);
    // A rank that is a phase ahead has compared our hash with its own before it went on.
    if (static_cast<std::uint32_t>(value) == phase_ && static_cast<std::uint32_t>(value >> 32) != hash_) [[unlikely]]
      disagree(r);
  }
}

void ShmGroup::compare_descriptors() {
  synchronise();
  for (int r = 0; r < size_; ++r)
    if (!(cell(r).descriptor == cell(rank_).descriptor)) disagree(r);
  synchronise();  // nobody may begin another call while descriptors are read
}

void ShmGroup::disagree(int other) {
  const int a = std::min(rank_, other), b = std::max(rank_, other);
  region_->abort(ErrorCode::mismatch, members_[static_cast<std::size_t>(b)],
                 fmt::format("ranks disagree in call {} of their group: rank {} is in {}, rank {} in {}", calls_,
                             members_[static_cast<std::size_t>(a)], to_string(cell(a).descriptor), members_[static_cast<std::size_t>(b)],
                             to_string(cell(b).descriptor)));
  region_->throw_failure();
}

void ShmGroup::raise(Signal& signal, std::uint32_t count, std::uint32_t tag) {
  end_stream();
  // Sequentially consistent, so that of "raise, look for sleepers" and "announce sleep, look at the counter" one sees the other.
  signal.value.exchange(count | static_cast<std::uint64_t>(tag) << 32);
  if (signal.sleepers.load() != 0) futex_wake_all(low_half(signal.value));
}

std::uint64_t ShmGroup::await(const Signal& signal, std::uint32_t count, int writer) {
  const std::uint64_t value = signal.value.load(std::memory_order_acquire);
  if (reached(value, count)) return value;
  const std::int64_t begin = monotonic_ns();
  const std::uint64_t late = await_slowly(const_cast<Signal&>(signal), count, writer);
  std::atomic<std::int64_t>& waited = mine().waited_ns;  // which this thread alone writes
  waited.store(waited.load(std::memory_order_relaxed) + monotonic_ns() - begin, std::memory_order_relaxed);
  return late;
}

bool ShmGroup::await_spinning(const Signal& signal, std::uint32_t count) const {
  const std::int64_t start = monotonic_ns();
  const std::int64_t spin_until = start + (roomy_ ? kSpinOwnCore : kSpinShared);
  const std::int64_t yield_until = spin_until + (roomy_ ? kYieldOwnCore : kYieldShared);
  for (std::int64_t now = start; now < yield_until; now = monotonic_ns()) {
    for (int i = 0; i < 32; ++i) {
      if (reached(signal.value.load(std::memory_order_acquire), count)) return true;
      pause_spinning();
    }
    if (now >= spin_until) sched_yield();
  }
  return false;
}

std::uint64_t ShmGroup::await_slowly(Signal& signal, std::uint32_t count, int writer) {
  if (await_spinning(signal, count)) return signal.value.load(std::memory_order_acquire);
  mine().waiting_for.store(members_[static_cast<std::size_t>(writer)], std::memory_order_relaxed);
  const Deadline deadline = deadline_ ? *deadline_ : Deadline::after(waiting_->step);
  int laggard = find_laggard(writer);
  std::uint64_t seen = region_->page(laggard).sequence;
  std::int64_t last_sign = 0;  // of life of the laggard
  for (std::chrono::nanoseconds slice = kFirstSlice;; slice = std::min(kLastSlice, slice * 2)) {
    signal.sleepers.fetch_add(1);
    const std::uint64_t value = signal.value.load();
    if (!reached(value, count)) futex_wait(low_half(signal.value), static_cast<std::uint32_t>(value), slice);
    signal.sleepers.fetch_sub(1);
    const std::uint64_t now = signal.value.load(std::memory_order_acquire);
    if (reached(now, count)) {
      mine().waiting_for.store(-1, std::memory_order_relaxed);
      return now;
    }
    throw_if_gone(writer, signal, count);
    region_->throw_if_stopped(members_[static_cast<std::size_t>(rank_)], *waiting_, [&] { return to_string(cell(rank_).descriptor); });
    if (const int other = find_laggard(writer); other != laggard || region_->page(other).sequence != seen) {
      laggard = other;
      seen = region_->page(other).sequence;
      last_sign = monotonic_ns();
    }
    last_sign = std::max<std::int64_t>(last_sign, region_->page(laggard).marked_at_ns);
    if (deadline.counted_from(last_sign).expired()) time_out(writer, laggard, deadline);
  }
}

void ShmGroup::throw_if_gone(int writer, const Signal& signal, std::uint32_t count) {
  region_->throw_if_failed();
  const int world_rank = members_[static_cast<std::size_t>(writer)];
  const bool left = cell(writer).left.load() != 0, alive = region_->alive(world_rank);
  // It may have raised the signal as the last thing it did.
  if ((!left && alive) || reached(signal.value.load(), count)) return;
  const std::string what = alive ? "it left the group" : fmt::format("its process {} has ended", region_->page(world_rank).pid.load());
  region_->abort(ErrorCode::rank_failed, world_rank, fmt::format("{}; others wait for it in {}", what, to_string(cell(rank_).descriptor)));
  region_->throw_failure();
}

// The rank at the end of the chain of those that wait for one another, so that not the messenger gets blamed.
int ShmGroup::find_laggard(int writer) const {
  int laggard = members_[static_cast<std::size_t>(writer)];
  for (int hop = 0; hop < region_->world(); ++hop) {
    const int next = region_->page(laggard).waiting_for.load(std::memory_order_relaxed);
    if (next < 0 || next >= region_->world() || next == members_[static_cast<std::size_t>(rank_)]) break;
    laggard = next;
  }
  return laggard;
}

void ShmGroup::time_out(int writer, int laggard, const Deadline& deadline) {
  const Progress last = region_->progress(laggard);
  std::string text = fmt::format("nothing came from it for {:.1f} s", static_cast<double>(deadline.limit().count()) * 1e-9);
  text += last.step < 0 ? std::string("; it has completed no step") : fmt::format("; its last completed step is {}", last.step);
  text += fmt::format(" and it has begun {} collectives", last.sequence);
  text += fmt::format("; rank {} waits in {}", members_[static_cast<std::size_t>(rank_)], to_string(cell(rank_).descriptor));
  if (const int direct = members_[static_cast<std::size_t>(writer)]; direct != laggard)
    text += fmt::format(" for rank {}, which waits for it", direct);
  std::vector<int> missing;
  for (int r = 0; r < size_; ++r)
    if (r != rank_ && members_[static_cast<std::size_t>(r)] != laggard && !reached(cell(r).arrived.value.load(), phase_))
      missing.push_back(members_[static_cast<std::size_t>(r)]);
  if (!missing.empty()) text += fmt::format("; also missing: rank {}", fmt::join(missing, ", "));
  region_->abort(ErrorCode::timeout, laggard, text);
  region_->throw_failure();
}

}  // namespace tandem::shm
