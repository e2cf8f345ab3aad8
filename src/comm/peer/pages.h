// Pages: a page of the host's memory per rank of a group, which all its ranks see, and each rank's GPU sees its own: how kernels that wait
// are ended from outside, what they report, and why a group has ended.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "comm/peer/gpu_memory.h"
#include "comm/peer/layout.h"
#include "comm/peer/links.h"
#include "core/shared_memory.h"

namespace tandem::peer {

class Pages {
 public:
  // Collective; throws on all ranks or on none. The GPU is the thread's current one.
  Pages(Group& group, Links& links, Deadline deadline);
  ~Pages();
  Pages(const Pages&) = delete;

  // This rank's, as its GPU addresses it.
  HostPage* on_gpu() const { return on_gpu_; }
  // What the GPU of a rank last wrote. Any thread.
  bool gave_up(int rank) const { return volatile_page(rank).gave_up != 0; }
  int waited_for(int rank) const { return volatile_page(rank).waited_for; }

  // Ends the group on all its ranks: kernels that wait fall through. Only the first reason counts. Any thread.
  void end(ErrorCode code, int world_rank, std::string_view text);
  bool ended() const { return volatile_page(rank_).abort != 0; }
  // What end() was first called with, by any rank, if it was.
  std::optional<Error> failure() const;

 private:
  struct Page {
    HostPage gpu;
    std::atomic<std::uint32_t> state{0};  // of what follows: 0 nothing, 1 being written, 2 readable
    std::int32_t code = 0, rank = -1;
    char text[1000] = {};
  };
  Page& page(int rank) const { return *reinterpret_cast<Page*>(mappings_[static_cast<std::size_t>(rank)]->data()); }
  const volatile HostPage& volatile_page(int rank) const { return page(rank).gpu; }

  int rank_;
  std::vector<std::shared_ptr<Mapping>> mappings_;  // by rank
  std::shared_ptr<const ShownPages> shown_;         // this rank's
  HostPage* on_gpu_ = nullptr;
};

}  // namespace tandem::peer
