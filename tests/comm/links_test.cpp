// How ranks of a group over peer memory meet and agree, which needs no GPU.
#include "comm/peer/links.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/time.h>

#include <thread>

#include "comm/forwarding_group.h"
#include "comm/rank_processes.h"
#include "core/check.h"

namespace tandem::peer {
namespace {

using namespace std::chrono_literals;

// After an exchange its rank does nothing for a while.
class Slow final : public test::ForwardingGroup {
 public:
  using ForwardingGroup::ForwardingGroup;
  std::vector<std::vector<std::byte>> exchange(std::span<const std::byte> blob, std::optional<Deadline> deadline) override {
    auto blobs = ForwardingGroup::exchange(blob, deadline);
    std::this_thread::sleep_for(300ms);
    return blobs;
  }
};

// Interrupts what this process waits for, again and again.
void interrupt_every(std::chrono::microseconds time) {
  struct sigaction action = {};
  action.sa_handler = [](int) {};  // without SA_RESTART
  check(sigaction(SIGALRM, &action, nullptr) == 0, "a handler of signals");
  const itimerval timer = {{0, time.count()}, {0, time.count()}};
  check(setitimer(ITIMER_REAL, &timer, nullptr) == 0, "a timer");
}

TEST(Links, SignalsDoNotEndTheWaitForARank) {
  run_rank_processes(2, [](Group& group) {
    const Deadline deadline = Deadline::after(20s);
    if (group.rank() == 0) {
      interrupt_every(5ms);
      Links(group, deadline);
    } else {
      Slow slow(group);
      Links(slow, deadline);
    }
  });
}

TEST(Links, AllHearWhatTroubleTheFirstRankThatHasSomeIsIn) {
  run_rank_processes(3, [](Group& group) {
    for (const auto& [thrown, told] : {std::pair{ErrorCode::out_of_memory, ErrorCode::out_of_memory},
                                       {ErrorCode::unsupported, ErrorCode::unsupported},
                                       {ErrorCode::io, ErrorCode::unsupported}}) {
      try {
        all_do(group, Deadline::after(20s), [&] {
          if (group.rank() == 1) fail(thrown, "it is a test");
          if (group.rank() == 2) fail(ErrorCode::internal, "it is another one");
        });
        fail(ErrorCode::internal, "nobody hears of it");
      } catch (const Error& error) {
        check(error.code() == told && error.message() == "rank 1: it is a test", error.what());
      }
    }
    all_do(group, Deadline::after(20s), [] {});
  });
}

}  // namespace
}  // namespace tandem::peer
