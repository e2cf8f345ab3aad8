// Room: memory of the ranks of a group that kernels push into by rules of their own, which room_layout.h says.
#pragma once

#include <cstddef>
#include <memory>

#include "comm/peer/gpu_memory.h"
#include "comm/peer/room_layout.h"
#include "comm/peer/window.h"

namespace tandem::peer {

class Room {
 public:
  // Collective; throws on all ranks or on none, Error(mismatch) where they want other numbers of bytes, Error(out_of_memory) where
  // there is too little memory. The device is the thread's current one.
  Room(Group& group, Device& device, std::size_t there, std::size_t back, Deadline deadline);
  // No kernel of this rank may be using it when it goes.
  Room(const Room&) = delete;

  bool holds(std::size_t there, std::size_t back) const { return there <= there_ && back <= back_; }
  RoomView view() const;

 private:
  int ranks_;
  std::size_t there_, back_;
  std::unique_ptr<Window> window_;
  std::unique_ptr<RoomState, FreeOnGpu> state_;
};

}  // namespace tandem::peer
