// A thread rank that is stuck inside a kernel: nobody can end it, and nobody waits for it longer than was agreed.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <ctime>
#include <memory>
#include <stdexcept>
#include <thread>

#include "core/check.h"
#include "team/mlp.h"

namespace tandem {
namespace {

using namespace std::chrono_literals;

// A machine may be busy: this is only to tell an end from a hang.
constexpr auto kPatience = 60s;
constexpr std::size_t kPage = 4096;

// A page whose first reader is held fast in the middle of its load, wherever in a kernel that is, until it is let go; later readers
// pass. One at a time: the handler of the fault has to find it.
class Quicksand {
 public:
  Quicksand() : page_(::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    current = this;
    struct sigaction action = {};
    action.sa_sigaction = hold;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    ::sigaction(SIGSEGV, &action, &before_);
  }
  ~Quicksand() {
    let_go = true;
    ::sigaction(SIGSEGV, &before_, nullptr);
    ::munmap(page_, kPage);
  }
  std::byte* bytes() const { return static_cast<std::byte*>(page_); }
  void arm() { ::mprotect(page_, kPage, PROT_NONE); }

  std::atomic<bool> held = false, let_go = false;

 private:
  static inline Quicksand* current = nullptr;

  // Only what a signal handler may do.
  static void hold(int, siginfo_t* info, void*) {
    auto* at = static_cast<std::byte*>(info->si_addr);
    if (at < current->bytes() || at >= current->bytes() + kPage) {
      ::sigaction(SIGSEGV, &current->before_, nullptr);  // not ours: the load faults again, as usual
      return;
    }
    ::mprotect(current->page_, kPage, PROT_READ | PROT_WRITE);
    if (current->held.exchange(true)) return;
    const timespec pause = {0, 5'000'000};
    while (!current->let_go) ::nanosleep(&pause, nullptr);
  }

  void* page_;
  struct sigaction before_ = {};
};

std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return fmt::format("{} {} {}", to_string(error.code()), error.rank() >= 0, error.what());
  }
  return "no error";
}

bool comes_true(const std::function<bool()>& holds) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!holds() && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(5ms);
  return holds();
}

class StuckThread : public ::testing::TestWithParam<const char*> {};

TEST_P(StuckThread, IsLetGoWithWhatItUses) {
  const auto sand = std::make_shared<Quicksand>();
  std::weak_ptr<const Plan> plan;
  std::weak_ptr<const void> input;
  {
    const auto x = ramp(2);
    const Tensor source = Tensor::of(DType::f32, {2, kWidth}, x);
    std::copy_n(source.data(), source.size_bytes(), sand->bytes());
    const std::shared_ptr<const void> owner(sand->bytes(), [sand](const void*) {});
    input = owner;
    TeamTensors inputs = {{"x", {Tensor(DType::f32, {2, kWidth}, sand->bytes(), owner)}}};
    const Built built = build_mlp(GetParam());
    plan = built.plan;
    TeamSettings settings;
    settings.step_deadline = 1s;
    settings.drain_deadline = 300ms;
    Team team({built.plan}, built.weights(), settings);
    const Tensor good = team.run(inputs).at("y").at(0);
    for (std::int64_t i = 0; i < good.count(); ++i) EXPECT_NEAR(good.at(i), expected(x)[static_cast<std::size_t>(i)], 1e-5);

    sand->arm();
    const std::string first = error_of([&] { team.run(inputs); });
    EXPECT_TRUE(sand->held);
    EXPECT_NE(first.find("timeout true"), std::string::npos) << first;
    EXPECT_NE(first.find("no progress for 1.0 s"), std::string::npos) << first;
    EXPECT_NE(first.find("it had completed 0 of"), std::string::npos) << first;
    EXPECT_EQ(error_of([&] { team.run(inputs); }), first);  // closed for good
  }
  // The team, its plan and the caller's tensors are gone as far as we are concerned; the thread is where it was, with all it may touch.
  EXPECT_FALSE(sand->let_go);
  EXPECT_FALSE(plan.expired());
  EXPECT_FALSE(input.expired());
  sand->let_go = true;
  EXPECT_TRUE(comes_true([&] { return plan.expired() && input.expired(); })) << "the thread did not end when it could";
}

INSTANTIATE_TEST_SUITE_P(Ranks, StuckThread, ::testing::Values("", "tp=2", "tp=4"));

// Weights that do not come before `come` is true. Who is told how far that is may give up, which does not wait for the ranks' drain
// deadline.
TEST(StuckLoading, EndsWhenWhoIsToldGivesUp) {
  std::weak_ptr<const Plan> plan;
  const auto come = std::make_shared<std::atomic<bool>>(false), left = std::make_shared<std::atomic<bool>>(false);
  {
    const Built built = build_mlp("tp=2");
    plan = built.plan;
    const WeightSource slow = [come, left, weights = built.weights()](const PlanWeight& weight, int rank) {
      while (!*come) std::this_thread::sleep_for(5ms);
      if (rank == 1) *left = true;
      return weights(weight, rank);
    };
    TeamSettings settings;
    settings.drain_deadline = 1h;
    settings.stop_deadline = 50ms;
    settings.progress = [](double done) {
      EXPECT_EQ(done, 0);
      throw std::runtime_error("enough");
    };
    EXPECT_THROW(Team({built.plan}, slow, settings), std::runtime_error);
  }
  EXPECT_FALSE(*left);
  EXPECT_FALSE(plan.expired());
  *come = true;
  EXPECT_TRUE(comes_true([&] { return plan.expired(); })) << "the threads did not end when they could";
  EXPECT_TRUE(*left);
}

}  // namespace
}  // namespace tandem
