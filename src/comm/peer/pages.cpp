#include "comm/peer/pages.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "core/check.h"
#include "device/cuda/runtime.h"

namespace tandem::peer {
namespace {

constexpr std::size_t kBytes = 4096;

}  // namespace

Pages::Pages(Group& group, Links& links, Deadline deadline) : rank_(group.rank()) {
  const SharedMemory own = SharedMemory::create("tandem-peer", kBytes);
  const std::vector<Descriptor> descriptors = links.exchange(group, own.fd(), deadline);
  all_do(group, deadline, [&] {
    for (const Descriptor& descriptor : descriptors) {
      const SharedMemory memory = SharedMemory::open(descriptor.get());
      check(memory.size() >= kBytes, "a page is shared");
      mappings_.push_back(memory.map(0, kBytes));
    }
    Page* mine = new (&page(rank_)) Page;
    shown_ = std::make_shared<ShownPages>(mine, kBytes, mappings_[static_cast<std::size_t>(rank_)]);
    on_gpu_ = static_cast<HostPage*>(shown_->on_gpu(mine));
  });
}

Pages::~Pages() { hide(std::move(shown_)); }

void Pages::end(ErrorCode code, int world_rank, std::string_view text) {
  for (int r = 0; r < static_cast<int>(mappings_.size()); ++r) {
    Page& to = page(r);
    std::uint32_t expected = 0;
    if (to.state.compare_exchange_strong(expected, 1)) {
      to.code = static_cast<std::int32_t>(code);
      to.rank = world_rank;
      const std::size_t length = std::min(text.size(), sizeof to.text - 1);
      std::memcpy(to.text, text.data(), length);
      to.text[length] = '\0';
      to.state.store(2, std::memory_order_release);
    }
    const_cast<volatile std::uint32_t&>(to.gpu.abort) = 1;
  }
}

std::optional<Error> Pages::failure() const {
  const Page& mine = page(rank_);
  if (mine.state.load(std::memory_order_acquire) != 2) return std::nullopt;
  return Error(static_cast<ErrorCode>(mine.code), mine.text, {}, mine.rank);
}

}  // namespace tandem::peer
