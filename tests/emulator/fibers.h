// Threads of a GPU's block, played by one thread of the CPU: fibers that take turns, in an order that is another one each time.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace tandem::emulator {

// Where fibers wait for one another: a barrier of a block or of a warp.
struct Meeting {
  int expected = 0;        // fibers that have not ended
  std::vector<int> there;  // that wait
  bool vote = false, outcome = false;
};

class Fibers {
 public:
  // Of this thread; they keep their stacks.
  static Fibers& here();
  ~Fibers();

  // Calls work(0) … work(count − 1), each in a fiber; returns when all have. `seed`: of the order.
  void run(int count, const std::function<void(int)>& work, std::uint64_t seed);

  // The rest is for fibers.
  int current() const { return current_; }
  // The others go on first: for who looks in vain for what another thread does.
  void yield();
  // Returns when all fibers of the meeting are there; whether one of them voted for it.
  bool meet(Meeting& meeting, bool vote = false);
  // The fiber will not come to it any more.
  void leave(Meeting& meeting);

 private:
  struct Fiber;

  void enter(int fiber);
  void back();
  void release(Meeting& meeting);
  std::uint64_t draw();
  static void body();

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<int> ready_, later_;  // in this round, in the next
  std::jmp_buf main_;
  const std::function<void(int)>* work_ = nullptr;
  int current_ = -1, left_ = 0;
  bool moved_ = false;  // a fiber got on in this round
  std::uint64_t random_ = 1;
};

}  // namespace tandem::emulator
