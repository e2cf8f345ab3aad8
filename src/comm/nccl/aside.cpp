#include "comm/nccl/aside.h"

#include <vector>

#include "tandem/deadline.h"

namespace tandem::nccl {
namespace {

constexpr std::chrono::nanoseconds kAtTheEnd = std::chrono::seconds(2);  // of the process, for all of them together

// Those that may still be running.
class Running {
 public:
  void add(const std::shared_ptr<Aside>& aside) {
    const std::lock_guard lock(mutex_);
    std::erase_if(all_, [](const auto& other) { return other->wait({}); });
    all_.push_back(aside);
  }
  ~Running() {
    const Deadline deadline = Deadline::after(kAtTheEnd);
    for (const auto& aside : all_) aside->wait(deadline.remaining());
  }

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<Aside>> all_;
};

}  // namespace

std::shared_ptr<Aside> Aside::begin(std::function<void()> work) {
  static Running running;
  std::shared_ptr<Aside> aside(new Aside);
  // The thread owns what it writes to, for it may outlive this object.
  aside->thread_ = std::thread([work = std::move(work), promise = std::move(aside->promise_)]() mutable {
    work();
    promise.set_value();
  });
  running.add(aside);
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
