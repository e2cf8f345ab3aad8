// The threads of one CPU rank: kernels split their work over them. As a Stream it has nothing to wait for, since kernels run in the caller.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "device/device.h"

namespace tandem {

// The calling thread works too, so a pool of 1 has no threads of its own and costs a plain call.
// One caller at a time; bodies must not call the pool they run in. Idle threads spin for some microseconds, then sleep.
class ThreadPool final : public Stream {
 public:
  // Throws Error(invalid_argument) unless threads ≥ 1.
  explicit ThreadPool(int threads);
  ~ThreadPool() override;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void wait(Deadline) override {}
  void redirect(void* handle) override;
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(task, thread) once for each task in 0 … tasks-1, in any order; thread < threads(). Returns when all are done.
  // The first exception of a body is rethrown here; the other tasks may then be skipped.
  template <typename Body>
  void each(std::int64_t tasks, const Body& body) {
    if (tasks <= 1 || workers_.empty()) {
      for (std::int64_t i = 0; i < tasks; ++i) body(i, 0);
      return;
    }
    run(
        tasks, [](const void* b, std::int64_t task, int thread) { (*static_cast<const Body*>(b))(task, thread); }, &body);
  }

  // Calls body(begin, end, thread) for consecutive ranges that cover 0 … count-1, at most one range per thread, none
  // but the last shorter than `grain`. Which ranges depends on count, grain and threads() only.
  template <typename Body>
  void split(std::int64_t count, std::int64_t grain, const Body& body) {
    if (count <= 0) return;
    const std::int64_t parts = part_count(count, grain);
    if (parts == 1) return body(0, count, 0);
    const std::int64_t size = (count + parts - 1) / parts;
    each(parts, [&](std::int64_t part, int thread) {
      const std::int64_t begin = part * size, end = begin + size < count ? begin + size : count;
      if (begin < end) body(begin, end, thread);
    });
  }

 private:
  using Call = void (*)(const void* body, std::int64_t task, int thread);
  std::int64_t part_count(std::int64_t count, std::int64_t grain) const;
  void run(std::int64_t tasks, Call call, const void* body);
  void work(int thread);
  void take_tasks(int thread);

  std::vector<std::thread> workers_;
  std::atomic<std::uint32_t> round_{0};  // a new value wakes the workers
  std::atomic<std::uint32_t> busy_{0};   // workers that have not finished this round
  std::atomic<std::int64_t> next_{0};
  std::int64_t tasks_ = 0;
  Call call_ = nullptr;  // null: end
  const void* body_ = nullptr;
  std::mutex error_mutex_;
  std::exception_ptr error_;
};

}  // namespace tandem
