#include "device/cpu/thread_pool.h"

#include <algorithm>

#include "core/check.h"

namespace tandem {
namespace {

// Waits while `value` is `old`: spins long enough to bridge the gap between two kernels, then sleeps.
template <typename T>
void wait_while(const std::atomic<T>& value, T old) {
  for (int i = 0; i < 2000; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  if (threads < 1) fail(ErrorCode::invalid_argument, "a rank needs at least 1 thread, not {}", threads);
  workers_.reserve(static_cast<std::size_t>(threads - 1));
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  call_ = nullptr;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::redirect(void* handle) {
  if (handle) fail(ErrorCode::unsupported, "ranks of the CPU work in the caller's thread and take no stream");
}

std::int64_t ThreadPool::part_count(std::int64_t count, std::int64_t grain) const {
  grain = std::max<std::int64_t>(grain, 1);
  return std::clamp<std::int64_t>(count / grain, 1, threads());
}

void ThreadPool::run(std::int64_t tasks, Call call, const void* body) {
  tasks_ = tasks;
  call_ = call;
  body_ = body;
  error_ = nullptr;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<std::uint32_t>(workers_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  take_tasks(0);
  for (std::uint32_t left = busy_.load(std::memory_order_acquire); left != 0; left = busy_.load(std::memory_order_acquire))
    wait_while(busy_, left);
  if (error_) std::rethrow_exception(error_);
}

void ThreadPool::work(int thread) {
  for (std::uint32_t seen = 0;;) {
    wait_while(round_, seen);
    seen = round_.load(std::memory_order_acquire);
    if (!call_) return;
    take_tasks(thread);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
  }
}

void ThreadPool::take_tasks(int thread) {
  try {
    for (std::int64_t task; (task = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) call_(body_, task, thread);
  } catch (...) {
    next_.store(tasks_, std::memory_order_relaxed);
    const std::lock_guard lock(error_mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

}  // namespace tandem
