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
  // Only this rank's view of it ends, and the memory of each rank with the last view. No kernel may be using it here.
  ~Window();
  Window(const Window&) = delete;

  // The memory of a rank as this rank's GPU addresses it.
  char* at(int rank) const { return views_[static_cast<std::size_t>(rank)].data; }
  std::size_t bytes() const { return bytes_; }

 private:
  struct View {
    CUmemGenericAllocationHandle handle = 0;
    char* data = nullptr;
    bool reserved = false, mapped = false, owned = false;  // owned: the handle
  };
  View& view(int rank) { return views_[static_cast<std::size_t>(rank)]; }
  void make_own(int ordinal, int rank, std::size_t bytes, Descriptor& exported);
  void map(View& view, int ordinal);
  void let_go() noexcept;

  const Driver& driver_;
  std::size_t bytes_ = 0;
  std::vector<View> views_;
};

}  // namespace tandem::peer
