#include "comm/nccl/aside.h"

#include <cstdlib>
#include <utility>
#include <vector>

#include "tandem/deadline.h"

namespace tandem::nccl {
namespace {

// Those that may still be running. Never destroyed, for some begin while the process ends: in destructors of the program's own statics,
// which follow the end of ours.
struct Running {
  struct One {
    std::shared_ptr<Aside> aside;
    std::chrono::nanoseconds at_the_end;
  };

  std::mutex mutex;
  std::vector<One> all;
  bool end_waits = false;  // wait_at_the_end() is to be called
};

Running& running() {
  static auto* one = new Running;
  return *one;
}

void wait_at_the_end() {
  std::vector<Running::One> left;
  {
    const std::lock_guard lock(running().mutex);
    running().end_waits = false;
    left.swap(running().all);
  }
  const std::int64_t begin = monotonic_ns();
  for (const auto& one : left) one.aside->wait(one.at_the_end - std::chrono::nanoseconds(monotonic_ns() - begin));
}

void add(const std::shared_ptr<Aside>& aside, std::chrono::nanoseconds at_the_end) {
  Running& known = running();
  const std::lock_guard lock(known.mutex);
  std::erase_if(known.all, [](const auto& other) { return other.aside->wait({}); });
  known.all.push_back({aside, at_the_end});
  if (!std::exchange(known.end_waits, true)) std::atexit(wait_at_the_end);
}

}  // namespace

std::shared_ptr<Aside> Aside::begin(std::function<void()> work, std::chrono::nanoseconds at_the_end) {
  std::shared_ptr<Aside> aside(new Aside);
  // The thread owns what it writes to, for it may outlive this object.
  aside->thread_ = std::thread([work = std::move(work), promise = std::move(aside->promise_)]() mutable {
    work();
    promise.set_value();
  });
  add(aside, at_the_end);
  return aside;
}

Aside::~Aside() {
  if (thread_.joinable()) thread_.detach();
}

bool Aside::wait(std::chrono::nanoseconds limit) {
  if (end_.wait_for(limit) != std::future_status::ready) return false;
  std::call_once(joined_, [this] { thread_.join(); });
  return true;
}

}  // namespace tandem::nccl
