// Copies that a thread has started in the background: made as late as CUDA allows, when the thread waits for them.
#pragma once

#include <cstddef>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

namespace tandem::emulator {

class Copies {
 public:
  // `bytes` from `from`, and zeros up to `all`.
  void add(void* to, const void* from, std::size_t bytes, std::size_t all) { open_.push_back({to, from, bytes, all}); }
  void end_group() { groups_.push_back(std::exchange(open_, {})); }
  // Until all groups but the last `left` are there.
  void wait_but(std::size_t left) {
    for (; groups_.size() > left; groups_.pop_front())
      for (const Copy& copy : groups_.front()) make(copy);
  }
  void wait() {
    end_group();
    wait_but(0);
  }

 private:
  struct Copy {
    void* to;
    const void* from;
    std::size_t bytes, all;
  };
  static void make(const Copy& copy) {
    std::memcpy(copy.to, copy.from, copy.bytes);
    std::memset(static_cast<std::byte*>(copy.to) + copy.bytes, 0, copy.all - copy.bytes);
  }

  std::vector<Copy> open_;
  std::deque<std::vector<Copy>> groups_;
};

}  // namespace tandem::emulator
