// Window: memory on the GPU of every rank of a group that the GPUs of all of them can read and write.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "comm/peer/driver.h"
#include "comm/peer/links.h"

namespace tandem {
class Device;
}

namespace tandem::peer {

class Window {
 public:
  // Collective; throws on all ranks or on none, Error(unsupported) where the GPUs do not reach each other, Error(out_of_memory) where
  // one has too little. At least `bytes` on each rank, with contents undefined. The device is the thread's current one.
  Window(Group& group, Links& links, Device& device, std::size_t bytes, Deadline deadline);
  // Only this rank's view of it ends, and the memory of each rank with the last view. No kernel may be using it here; while watched work
  // of a context goes on (device/cuda/frees.h) it is waited for, a few seconds, and then the view is kept until that has ended.
  ~Window();
  Window(const Window&) = delete;

  // The memory of a rank as this rank's GPU addresses it.
  char* at(int rank) const { return views_->of[static_cast<std::size_t>(rank)].data; }
  std::size_t bytes() const { return views_->bytes; }

 private:
  struct View {
    CUmemGenericAllocationHandle handle = 0;
    char* data = nullptr;
    bool reserved = false, mapped = false, owned = false;  // owned: the handle
  };
  // This rank's views, which end with it.
  struct Views {
    explicit Views(std::size_t ranks) : of(ranks) {}
    ~Views();
    Views(const Views&) = delete;
    std::vector<View> of;
    std::size_t bytes = 0;
  };
  View& view(std::size_t rank) { return views_->of[rank]; }
  void make_own(int rank, std::size_t bytes, Descriptor& exported);
  void map(View& view);

  int ordinal_;
  std::shared_ptr<Views> views_;
};

}  // namespace tandem::peer
