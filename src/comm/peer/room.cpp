#include "comm/peer/room.h"

#include <array>
#include <cstring>

#include "core/check.h"
#include "device/cuda/runtime.h"

namespace tandem::peer {
namespace {

constexpr std::size_t kArrivalBytes = static_cast<std::size_t>(kRoomEvents) * kMaxRanks * kArrivalStride;

void check_sizes(Group& group, std::size_t there, std::size_t back, Deadline deadline) {
  const std::array<std::uint64_t, 2> mine = {there, back};
  const auto all = group.exchange(std::as_bytes(std::span(mine)), deadline);
  for (std::size_t r = 0; r < all.size(); ++r) {
    std::array<std::uint64_t, 2> other{};
    check(all[r].size() == sizeof other, "ranks exchange sizes");
    std::memcpy(other.data(), all[r].data(), sizeof other);
    if (other != mine)
      fail(ErrorCode::mismatch, "rank {} wants {} and {} bytes for what the ranks push to one another, rank {} wants {} and {}",
           group.members()[r], other[0], other[1], group.members()[static_cast<std::size_t>(group.rank())], there, back);
  }
}

}  // namespace

Room::Room(Group& group, Device& device, std::size_t there, std::size_t back, Deadline deadline)
    : ranks_(group.size()), there_(aligned_size(there)), back_(aligned_size(back)) {
  check_sizes(group, there_, back_, deadline);
  Links links(group, deadline);
  window_ = std::make_unique<Window>(group, links, device, there_ + back_ + kArrivalBytes, deadline);
  all_do(group, deadline, [&] {
    fill_on_gpu(window_->at(group.rank()) + there_ + back_, 0, kArrivalBytes, "clearing memory for peers");
    state_ = allocate_on_gpu<RoomState>("allocating the state of a room");
    fill_on_gpu(state_.get(), 0, sizeof(RoomState), "clearing memory for peers");
  });
}

RoomView Room::view() const {
  RoomView view{};
  for (int r = 0; r < ranks_; ++r) {
    view.there[r] = window_->at(r);
    view.back[r] = view.there[r] + there_;
    view.arrivals[r] = view.back[r] + back_;
  }
  view.state = state_.get();
  return view;
}

}  // namespace tandem::peer
