#include "emulator/fibers.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <chrono>
#include <new>
#include <thread>
#include <utility>

#include "core/check.h"

namespace tandem::emulator {
namespace {

constexpr std::size_t kStack = 64 << 10;
// Rounds in which nobody got on before this thread leaves the processor to others for longer.
constexpr int kPatientRounds = 4;

}  // namespace

// Contexts start it; jumps, which ask the kernel nothing, do the rest.
struct Fibers::Fiber {
  Fiber() : stack(mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (stack == MAP_FAILED) throw std::bad_alloc();
  }
  ~Fiber() { munmap(stack, kStack); }
  Fiber(const Fiber&) = delete;

  void* stack;
  bool started = false;
  std::jmp_buf at;
};

Fibers& Fibers::here() {
  thread_local Fibers fibers;
  return fibers;
}

Fibers::~Fibers() = default;

void Fibers::run(int count, const std::function<void(int)>& work, std::uint64_t seed) {
  while (static_cast<int>(fibers_.size()) < count) fibers_.push_back(std::make_unique<Fiber>());
  work_ = &work;
  left_ = count;
  random_ = seed * 0x9e3779b97f4a7c15u | 1;
  for (int i = 0; i < count; ++i) later_.push_back(i);
  for (int idle = 0; left_ > 0;) {
    check(!later_.empty(), "threads of a block wait at barriers that not all of them come to");
    std::swap(ready_, later_);
    for (std::size_t i = ready_.size(); i > 1; --i) std::swap(ready_[i - 1], ready_[draw() % i]);
    moved_ = false;
    for (const int fiber : ready_) enter(fiber);
    ready_.clear();
    idle = moved_ ? 0 : idle + 1;
    if (idle > kPatientRounds) std::this_thread::sleep_for(std::chrono::microseconds(20));
    else if (idle > 0) std::this_thread::yield();
  }
}

void Fibers::enter(int fiber) {
  current_ = fiber;
  if (_setjmp(main_) != 0) return;
  Fiber& to = *fibers_[static_cast<std::size_t>(fiber)];
  if (to.started) _longjmp(to.at, 1);
  to.started = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack = {.ss_sp = to.stack, .ss_flags = 0, .ss_size = kStack};
  context.uc_link = nullptr;
  makecontext(&context, body, 0);
  setcontext(&context);
}

void Fibers::back() {
  if (_setjmp(fibers_[static_cast<std::size_t>(current_)]->at) == 0) _longjmp(main_, 1);
}

void Fibers::body() {
  for (Fibers& fibers = here();;) {
    (*fibers.work_)(fibers.current_);
    --fibers.left_;
    fibers.moved_ = true;
    fibers.back();
  }
}

void Fibers::yield() {
  later_.push_back(current_);
  back();
}

bool Fibers::meet(Meeting& meeting, bool vote) {
  meeting.vote = meeting.vote || vote;
  moved_ = true;
  meeting.there.push_back(current_);
  if (static_cast<int>(meeting.there.size()) == meeting.expected) release(meeting);
  back();
  return meeting.outcome;
}

void Fibers::leave(Meeting& meeting) {
  --meeting.expected;
  if (!meeting.there.empty() && static_cast<int>(meeting.there.size()) == meeting.expected) release(meeting);
}

void Fibers::release(Meeting& meeting) {
  later_.insert(later_.end(), meeting.there.begin(), meeting.there.end());
  meeting.there.clear();
  meeting.outcome = std::exchange(meeting.vote, false);
}

// xorshift64
std::uint64_t Fibers::draw() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  return random_ ^= random_ << 17;
}

}  // namespace tandem::emulator
