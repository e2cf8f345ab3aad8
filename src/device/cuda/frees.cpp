#include "device/cuda/frees.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "device/cuda/runtime.h"
#include "device/cuda/trouble.h"

namespace tandem::cuda {
namespace {

constexpr std::chrono::nanoseconds kPatience = std::chrono::seconds(4);

struct Watched {
  int ordinal;
  cudaEvent_t end;
  bool late = false;  // was waited for in vain
};

struct Kept {
  int ordinal;
  void* memory;
  cudaError_t (*free)(void*);
};

enum class Work { over, under_way, late };

std::mutex mutex;
std::atomic<bool> is_any_kept{false};

// Never destroyed, as memory may be given back while the process ends.
std::vector<Watched>& watched() {
  static auto* list = new std::vector<Watched>;
  return *list;
}
std::vector<Kept>& kept() {
  static auto* list = new std::vector<Kept>;
  return *list;
}

Work look(int ordinal, bool give_up = false) noexcept {
  const std::lock_guard lock(mutex);
  Work found = Work::over;
  for (Watched& work : watched()) {
    if (ordinal != kAllGpus && work.ordinal != ordinal) continue;
    const bool goes_on = cudaEventQuery(work.end) == cudaErrorNotReady;
    work.late = goes_on && (work.late || give_up);
    if (goes_on) found = std::max(found, work.late ? Work::late : Work::under_way);
  }
  return found;
}

bool lost(int ordinal) noexcept { return ordinal == kAllGpus ? any_lost() : is_lost(ordinal); }

void keep(const Kept& one) {
  const std::lock_guard lock(mutex);
  kept().push_back(one);
  is_any_kept = true;
}

}  // namespace

void watch(int ordinal, cudaEvent_t end) {
  const std::lock_guard lock(mutex);
  watched().push_back({ordinal, end});
}

void unwatch(cudaEvent_t end) noexcept {
  const std::lock_guard lock(mutex);
  std::erase_if(watched(), [end](const Watched& work) { return work.end == end; });
}

bool is_idle(int ordinal) noexcept {
  const BesideRecordings allowed;
  return look(ordinal) == Work::over;
}

bool becomes_idle(int ordinal, Deadline deadline) noexcept {
  const BesideRecordings allowed;
  for (Work work; (work = look(ordinal)) != Work::over;) {
    if (work == Work::late) return false;
    if (deadline.expired()) return look(ordinal, true) == Work::over;
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return true;
}

void free_when_idle(int ordinal, void* memory, cudaError_t (*free)(void*)) noexcept {
  if (!memory) return;
  const BesideRecordings allowed;
  if (lost(ordinal) || !becomes_idle(ordinal, Deadline::after(kPatience))) return keep({ordinal, memory, free});
  free(memory);
}

void free_kept() noexcept {
  if (!is_any_kept) return;
  is_any_kept = false;
  const BesideRecordings allowed;
  std::vector<Kept> all;
  {
    const std::lock_guard lock(mutex);
    all.swap(kept());
  }
  for (const Kept& one : all) {
    if (lost(one.ordinal) || look(one.ordinal) != Work::over) keep(one);
    else one.free(one.memory);
  }
}

bool any_kept() noexcept { return is_any_kept; }

}  // namespace tandem::cuda
