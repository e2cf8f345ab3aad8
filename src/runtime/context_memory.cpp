// The arena of a RankContext: where it comes from, and that groups of GPUs know it.
#include <algorithm>

#include "core/check.h"
#include "runtime/context_bound.h"

namespace tandem {
namespace {

[[noreturn]] void too_small(std::size_t needed, std::size_t given) {
  fail(ErrorCode::out_of_memory, "{} bytes are needed for activations and workspace, the memory that was given has {}", needed, given);
}

}  // namespace

// Ranks of files that another tool made do not use their arenas alike.
void RankContext::register_arena(Group& group) {
  auto* gpu = dynamic_cast<GpuGroup*>(&group);
  if (!gpu || !options_.same_plan) return;
  std::shared_ptr<Registration>& known = registered_[gpu];
  const Registration* const before = known.get();
  if (before) wait_until_done();  // another rank may have other memory now, and then it goes
  known = gpu->register_memory(arena_, std::move(known), Deadline::after(options_.rendezvous_deadline));
  if (before && known.get() != before) forget_recordings();
}

// Before the arena is another one, when all work is done. Recordings of the caller's keep what they use.
bool RankContext::unregister_arena() {
  if (std::ranges::none_of(registered_, [](const auto& known) { return known.second != nullptr; })) return false;
  forget_recordings();
  registered_.clear();
  return true;
}

// NCCL's kernels in them know where registered memory lies at other ranks; branches in them have the priorities of the streams that they
// were recorded from.
void RankContext::forget_recordings() {
  for (const auto& bound : bounds_) bound->recorded.clear();
}

bool RankContext::is_registered() const {
  const auto known = registered_.find(group_);
  return known != registered_.end() && known->second;
}

void RankContext::set_memory(std::byte* memory, std::size_t bytes) {
  const Turn turn(*this);
  if (reinterpret_cast<std::uintptr_t>(memory) % kAlignment != 0)
    fail(ErrorCode::invalid_argument, "the memory for activations is at {}, which is not aligned to {} bytes",
         static_cast<const void*>(memory), kAlignment);
  const std::size_t needed = bounds_.empty() ? 0 : bounds_.front()->needed_bytes();
  if (memory && needed > bytes) too_small(needed, bytes);
  wait_until_done();
  if (unregister_arena())
    for (const auto& bound : bounds_) bound->agreed = false;
  arena_ = std::make_shared<DeviceMemory>(memory ? DeviceMemory::borrowed(memory, bytes) : DeviceMemory());
  lent_ = memory != nullptr;
}

// Makes the arena large enough, or says why it cannot be. That happens in the first run of shapes, in which ranks agree on it anew.
void RankContext::reserve(std::size_t needed) {
  if (needed <= arena_->bytes()) return;
  if (lent_) too_small(needed, arena_->bytes());
  if (arena_->bytes() > 0) wait_until_done();
  unregister_arena();
  arena_ = std::make_shared<DeviceMemory>();  // first, for both need not fit
  arena_ = std::make_shared<DeviceMemory>(make_memory(needed));
}

}  // namespace tandem
