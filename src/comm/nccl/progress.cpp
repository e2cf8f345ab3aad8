#include "comm/nccl/progress.h"

#include <map>
#include <mutex>

#include "comm/shm/shm_group.h"
#include "device/cuda/runtime.h"

namespace tandem::nccl {

std::shared_ptr<ProgressWord> ProgressWord::of(Group& control) {
  auto* shm = dynamic_cast<shm::ShmGroup*>(&control);
  if (!shm) return nullptr;
  static std::mutex mutex;
  static std::map<void*, std::weak_ptr<ProgressWord>> known;  // by page
  const std::lock_guard lock(mutex);
  std::atomic<std::uint64_t>& shared = shm->gpu_sequence();
  void* const page = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(&shared) / shm::kPage * shm::kPage);
  if (auto word = known[page].lock()) return word;
  std::shared_ptr<ProgressWord> made(new ProgressWord);
  try {
    made->page_ = std::make_shared<peer::ShownPages>(page, shm::kPage, shm->region());
  } catch (const Error&) {
    return nullptr;
  }
  made->word_ = static_cast<std::uint64_t*>(made->page_->on_gpu(&shared));
  made->counter_ = peer::allocate_on_gpu<std::uint64_t>("allocating memory");
  const std::uint64_t begun = shared.load();
  peer::copy_to_gpu(made->counter_.get(), &begun, sizeof begun, "copying");
  known[page] = made;
  return made;
}

ProgressWord::~ProgressWord() { peer::hide(std::move(page_)); }

void ProgressWord::count(cudaStream_t stream) const {
  launch_progress(counter_.get(), word_, stream);
  cuda::check_launch("counting a collective");
}

}  // namespace tandem::nccl
