// Groups by NCCL when things go wrong, with a library that stands in for it (nccl_stub.cpp), so that no GPU is needed: who is named, and
// that every communicator is given back, once, by nobody who then still uses it.
#include "comm/nccl/nccl_group.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>

#include "comm/gpu_wait.h"
#include "comm/nccl_stub.h"
#include "comm/rank_processes.h"
#include "comm/ranks.h"
#include "comm/shm/shm_group.h"
#include "core/check.h"
#include "core/stop.h"
#include "device/device.h"

namespace tandem {
namespace {

using namespace std::chrono_literals;

test::NcclStub& stub() {
  static test::NcclStub* found = [] {
    setenv("TANDEM_CUDA_LIBRARIES", TANDEM_NCCL_STUB_FOLDER, 1);
    void* library = dlopen(TANDEM_NCCL_STUB_FOLDER "/libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    check(library != nullptr, "the library that stands in for NCCL can be opened");
    return reinterpret_cast<decltype(&nccl_stub)>(dlsym(library, "nccl_stub"))();
  }();
  return *found;
}

std::unique_ptr<GpuGroup> make_group(Group& control, std::chrono::nanoseconds deadline = 20s) {
  return nccl::kBackend.make(control, *cpu_device(), Deadline::after(deadline), nullptr);
}

// Counts as the rank's GPU would.
void sum(GpuGroup& group, std::chrono::nanoseconds limit = 20s) {
  static int a_stream;
  const std::int64_t dims[] = {3};
  float values[3] = {};
  ++dynamic_cast<shm::ShmGroup&>(group.control()).gpu_sequence();
  group.run({.kind = Collective::all_reduce,
             .reduction = Reduction::sum,
             .dims = dims,
             .stream = &a_stream,
             .in = values,
             .out = values,
             .deadline = Deadline::after(limit)});
}

// As a context does: what ends the wait for the stream ends the group, and what waits there then falls through.
void wait_for_stream(GpuGroup& group, std::chrono::nanoseconds limit = 20s) {
  GpuWait wait(group, limit, "the work of its GPU");
  try {
    for (; stub().waits(); std::this_thread::sleep_for(1ms)) wait.look();
  } catch (const Error& error) {
    group.abort(error.message());
    const Deadline drain = Deadline::after(5s);
    while (stub().waits() && !drain.expired()) std::this_thread::sleep_for(1ms);
    check(!stub().waits(), "kernels fall through");
    throw;
  }
}

void check_all_given_back(int aborted, int destroyed) {
  check(stub().live == 0, fmt::format("{} communicators are left", stub().live.load()));
  check(stub().aborted == aborted && stub().destroyed == destroyed,
        fmt::format("{} were aborted, {} destroyed", stub().aborted.load(), stub().destroyed.load()));
  check(stub().misuses == 0, "none is used after that");
}

// Two ranks; `act` is what rank 1 does after five calls, rank 0 goes on until it hears of it.
std::vector<RankOutcome> outcomes_when(const std::function<void()>& act, std::chrono::nanoseconds limit) {
  stub();
  RankProcesses ranks(2, [&](Group& control) {
    std::unique_ptr<GpuGroup> group = make_group(control);
    stub().graphs = 1;
    try {
      for (int call = 0; call < 1000; ++call) {
        if (call == 5 && control.rank() == 1) act();
        sum(*group, limit);
        wait_for_stream(*group, limit);
      }
    } catch (const Error&) {
      check(stub().live == 1, "a graph holds it");
      stub().graphs = 0;
      group.reset();
      check_all_given_back(1, 0);
      throw;
    }
  });
  return ranks.wait(20s);
}

TEST(NcclGroup, IsGivenBackOnce) {
  stub();
  run_rank_processes(2, [](Group& control) {
    std::unique_ptr<GpuGroup> group = make_group(control);
    for (int call = 0; call < 5; ++call) sum(*group), wait_for_stream(*group);
    control.exchange({});
    group.reset();
    check(stub().calls == 5, "every call goes to NCCL");
    check_all_given_back(0, 1);
  });
}

TEST(NcclGroup, ARankThatIsKilledIsNamed) {
  const auto outcomes = outcomes_when([] { raise(SIGKILL); }, 20s);
  ASSERT_TRUE(outcomes[0].finished);
  EXPECT_EQ(outcomes[0].code, ErrorCode::rank_failed) << outcomes[0].text;
  EXPECT_EQ(outcomes[0].rank, 1) << outcomes[0].text;
  EXPECT_LT(outcomes[0].seconds, 5);
}

TEST(NcclGroup, ARankThatIsStoppedIsNamed) {
  const auto outcomes = outcomes_when([] { raise(SIGSTOP); }, 500ms);
  ASSERT_TRUE(outcomes[0].finished);
  EXPECT_EQ(outcomes[0].code, ErrorCode::timeout) << outcomes[0].text;
  EXPECT_EQ(outcomes[0].rank, 1) << outcomes[0].text;
}

TEST(NcclGroup, ARankThatDoesNotCallIsNamedAndHearsOfIt) {
  const auto outcomes = outcomes_when([] { std::this_thread::sleep_for(2s); }, 500ms);
  for (const RankOutcome& outcome : outcomes) {
    ASSERT_TRUE(outcome.finished);
    EXPECT_EQ(outcome.code, ErrorCode::timeout) << outcome.text;
    EXPECT_EQ(outcome.rank, 1) << outcome.text;
  }
}

TEST(NcclGroup, ARankThatDiesWhileTheyJoinIsNamed) {
  stub();
  RankProcesses ranks(2, [](Group& control) {
    if (control.rank() == 1) {
      control.exchange({});  // where the others hear how their communicator is called
      raise(SIGKILL);
    }
    try {
      make_group(control);
    } catch (const Error&) {
      check_all_given_back(1, 0);
      throw;
    }
  });
  const auto outcomes = ranks.wait(20s);
  ASSERT_TRUE(outcomes[0].finished);
  EXPECT_EQ(outcomes[0].code, ErrorCode::rank_failed) << outcomes[0].text;
  EXPECT_EQ(outcomes[0].rank, 1) << outcomes[0].text;
}

// NCCL sees that connections are gone before the process counts as ended.
TEST(NcclGroup, WhatNcclSeesFirstNamesTheDeadRankToo) {
  stub();
  RankProcesses ranks(2, [](Group& control) {
    std::unique_ptr<GpuGroup> group = make_group(control);
    control.exchange({});
    if (control.rank() == 1) {
      std::this_thread::sleep_for(200ms);
      raise(SIGKILL);
    }
    stub().trouble = ncclRemoteError;
    sum(*group);
    wait_for_stream(*group);
  });
  const auto outcomes = ranks.wait(20s);
  ASSERT_TRUE(outcomes[0].finished);
  EXPECT_EQ(outcomes[0].code, ErrorCode::rank_failed) << outcomes[0].text;
  EXPECT_EQ(outcomes[0].rank, 1) << outcomes[0].text;
}

TEST(NcclGroup, TroubleOfNcclsEndsTheWaitForTheStream) {
  stub();
  RankProcesses ranks(2, [](Group& control) {
    std::unique_ptr<GpuGroup> group = make_group(control);
    control.exchange({});
    if (control.rank() == 1) return static_cast<void>(wait_for_stream(*group)), std::this_thread::sleep_for(3s);
    sum(*group);
    stub().trouble = ncclRemoteError;
    wait_for_stream(*group);
  });
  const auto outcomes = ranks.wait(20s);
  ASSERT_TRUE(outcomes[0].finished);
  EXPECT_EQ(outcomes[0].code, ErrorCode::rank_failed) << outcomes[0].text;
  EXPECT_NE(outcomes[0].text.find("remote process exited"), std::string::npos) << outcomes[0].text;
}

TEST(NcclGroup, ACallThatNcclDoesNotTakeIsWaitedForUntilItsDeadline) {
  stub();
  RankProcesses ranks(2, [](Group& control) {
    std::unique_ptr<GpuGroup> group = make_group(control);
    control.exchange({});
    if (control.rank() == 1) raise(SIGSTOP);
    stub().busy = true;
    sum(*group, 500ms);
  });
  const auto outcomes = ranks.wait(20s);
  ASSERT_TRUE(outcomes[0].finished);
  EXPECT_EQ(outcomes[0].code, ErrorCode::timeout) << outcomes[0].text;
  EXPECT_EQ(outcomes[0].rank, 1) << outcomes[0].text;
}

TEST(NcclGroup, PartsAreAbortedTogether) {
  stub();
  run_rank_processes(3, [](Group& control) {
    std::unique_ptr<GpuGroup> group = make_group(control);
    const std::unique_ptr<Group> part = group->split({{2, 0}}, Deadline::after(20s)),
                                 other = group->split({{0, 1, 2}}, Deadline::after(20s));
    check((part == nullptr) == (control.rank() == 1), "rank 1 is in no part");
    if (part) sum(dynamic_cast<GpuGroup&>(*part)), wait_for_stream(dynamic_cast<GpuGroup&>(*part));
    control.exchange({});
    dynamic_cast<GpuGroup&>(*other).abort("enough");
    for (GpuGroup* each : {group.get(), dynamic_cast<GpuGroup*>(part.get()), dynamic_cast<GpuGroup*>(other.get())}) {
      if (!each) continue;
      try {
        sum(*each);
        fail(ErrorCode::internal, "a call on an aborted communicator goes through");
      } catch (const Error& error) {
        check(error.code() == ErrorCode::aborted, error.what());
      }
    }
    const_cast<std::unique_ptr<Group>&>(part).reset();
    const_cast<std::unique_ptr<Group>&>(other).reset();
    group.reset();
    check_all_given_back(control.rank() == 1 ? 2 : 3, 0);
  });
}

ncclComm_t communicator_of_the_caller(Group& group) {
  const nccl::Api& api = nccl::api();
  ncclUniqueId id = {};
  if (group.rank() == 0) nccl::check(api.ncclGetUniqueId(&id), "making a name");
  std::memcpy(&id, group.exchange(std::as_bytes(std::span(&id, 1))).at(0).data(), sizeof id);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  ncclComm_t comm = nullptr;
  ncclResult_t state = api.ncclCommInitRankConfig(&comm, group.size(), id, group.rank(), &config);
  for (; state == ncclInProgress; std::this_thread::sleep_for(1ms)) nccl::check(api.ncclCommGetAsyncError(comm, &state), "joining");
  nccl::check(state, "joining");
  return comm;
}

// Whether who asks for memory may get what lies at `at`.
bool is_free(const void* at) {
  bool found = false;
  std::vector<std::unique_ptr<char[]>> held;
  for (std::size_t size = 8; size <= 1024; size += 8)
    for (int i = 0; i < 16; ++i) {
      const char* const from = held.emplace_back(new char[size]).get();
      found |= !std::less<const void*>()(at, from) && std::less<const void*>()(at, from + size);
    }
  return found;
}

// One rank does not come: the other's wait ends, with its deadline or when its caller wants it, and what NCCL writes to then stays.
TEST(NcclGroup, ASplitThatOneRankMissesEndsAndMayStillBeWritten) {
  stub();
  for (const bool lent : {false, true})
    for (const bool hasty : {false, true})
      for (const bool interrupted : {false, true}) {
        RankProcesses ranks(2, [&](Group& control) {
          std::unique_ptr<nccl::Communicator> comm = lent ? nccl::Communicator::borrow(communicator_of_the_caller(control))
                                                          : nccl::Communicator::create(control, Deadline::after(20s));
          control.exchange({});
          if (control.rank() == 1)
            for (;; std::this_thread::sleep_for(1ms)) control.throw_if_failed();  // until it hears of it
          stub().hasty = hasty;
          const Deadline soon = Deadline::after(200ms);
          const std::function<bool()> stop = [&] { return interrupted && soon.expired(); };
          const StopScope scope(stop);
          try {
            comm->split(control, 0, 0, Deadline::after(interrupted ? 20s : 200ms));
          } catch (const Error&) {
            check(stub().split_to != nullptr && !is_free(stub().split_to), "NCCL may still write there");
            comm.reset();
            check_all_given_back(1, 0);
            throw;
          }
        });
        const RankOutcome outcome = ranks.wait(20s).at(0);
        SCOPED_TRACE(fmt::format("lent {}, hasty {}, interrupted {}", lent, hasty, interrupted));
        ASSERT_TRUE(outcome.finished);
        EXPECT_EQ(outcome.code, interrupted ? ErrorCode::interrupted : ErrorCode::timeout) << outcome.text;
        EXPECT_LT(outcome.seconds, 5);
      }
}

TEST(NcclGroup, AnAbortThatDoesNotReturnIsLeftBehind) {
  stub();
  run_rank_processes(2, [](Group& control) {
    std::unique_ptr<GpuGroup> group = make_group(control);
    control.exchange({});
    stub().stuck = true;
    group->abort("enough");
    const std::int64_t begin = monotonic_ns();
    group.reset();
    check(monotonic_ns() - begin < 8'000'000'000, "the end of a group is bounded");
    check(stub().live == 1 && stub().misuses == 0, "it is left to NCCL");
  });
}

// As where other processes use the GPUs: NCCL takes seconds to give a communicator back, and main() has returned before.
TEST(NcclGroup, AProcessEndsWhenItsCommunicatorsHaveBeenGivenBack) {
  const auto life = [] {
    std::atexit([] { _exit(stub().live == 0 && stub().destroyed == 2 ? 0 : 1); });  // where CUDA would be taken apart
    stub().slow_ms = 4000;
    run_ranks(2, [](Group& control) {
      const std::unique_ptr<GpuGroup> group = make_group(control);
      control.exchange({});
    });
    std::exit(2);
  };
  EXPECT_EXIT(life(), ::testing::ExitedWithCode(0), "");
}

std::shared_ptr<const DeviceMemory> some_memory() { return std::make_shared<DeviceMemory>(cpu_device(), 4096); }

void check_registered(int buffers) { check(stub().buffers == buffers, fmt::format("{} buffers are registered", stub().buffers.load())); }

// What is registered where the ranks' memory is alike, and where it is not.
TEST(NcclGroup, MemoryIsRegisteredOnAllRanksOrNone) {
  stub();
  run_rank_processes(2, [](Group& control) {
    setenv("TANDEM_NCCL_REGISTER", "buffers", 1);
    const bool second = control.rank() == 1;
    std::unique_ptr<GpuGroup> group = make_group(control);
    const Deadline limit = Deadline::after(20s);
    const auto memory = some_memory(), other = some_memory(), none = std::make_shared<const DeviceMemory>();
    std::shared_ptr<Registration> known = group->register_memory(memory, nullptr, limit);
    check(known != nullptr, "memory is registered");
    const Registration* const first = known.get();
    known = group->register_memory(memory, known, limit);
    check(known.get() == first, "the same memory stays as it is");
    check_registered(1);
    known = group->register_memory(second ? memory : other, std::move(known), limit);
    check(known != nullptr, "other memory of one rank is registered anew on both");
    check_registered(1);
    known = group->register_memory(second ? none : memory, std::move(known), limit);
    check(!known, "one rank has none");
    check_registered(0);
    stub().deaf = second;
    check(!group->register_memory(memory, nullptr, limit), "what NCCL does not take on one");
    stub().deaf = false;
    setenv("TANDEM_NCCL_REGISTER", "none", 1);
    check(!group->register_memory(memory, nullptr, limit), "what nobody asks for");
    check_registered(0);
    group.reset();
    check_all_given_back(0, 1);
  });
}

TEST(NcclGroup, AnUnknownWayToRegisterIsRefused) {
  stub();
  for (const auto& [word, words] : {std::pair("buffer", "is 'buffer': buffers and none are known"),
                                    {"windows", "is 'windows': buffers and none are known, and windows no more, for NCCL's kernels"}}) {
    RankProcesses ranks(2, [&](Group& control) {
      setenv("TANDEM_NCCL_REGISTER", word, 1);
      make_group(control)->register_memory(some_memory(), nullptr, Deadline::after(20s));
    });
    for (const RankOutcome& outcome : ranks.wait(20s)) {
      EXPECT_EQ(outcome.code, ErrorCode::invalid_argument) << outcome.text;
      EXPECT_NE(outcome.text.find(words), std::string::npos) << outcome.text;
    }
  }
}

TEST(NcclGroup, MemoryGoesBeforeItsCommunicatorInWhateverOrder) {
  stub();
  run_rank_processes(2, [](Group& control) {
    setenv("TANDEM_NCCL_REGISTER", "buffers", 1);
    int groups = 0;
    for (const bool group_first : {true, false})
      for (const bool aborted : {false, true}) {
        // Not the group itself: an abort would end the world.
        const std::shared_ptr<nccl::Communicator> comm = nccl::Communicator::create(control, Deadline::after(20s));
        std::unique_ptr<GpuGroup> group = std::make_unique<nccl::NcclGroup>(control, comm);
        auto memory = some_memory();
        const std::weak_ptr<const DeviceMemory> kept = memory;
        auto buffer = group->register_memory(std::move(memory), nullptr, Deadline::after(20s));
        check(buffer && !kept.expired(), "it is registered, and kept");
        control.exchange({});
        if (aborted) comm->family()->abort();
        if (group_first) group.reset();
        buffer.reset();
        group.reset();
        check(comm->family()->has_given_back(), "nothing holds it");
        check(stub().misuses == 0, "none is touched once it is aborted, and nothing is registered when it goes");
        check(kept.expired(), "memory is given back");
        control.exchange({});
        ++groups;
      }
    check(groups == 4, "all of them");
  });
}

TEST(NcclGroup, AnAbortedOneIsNeverAskedAgainWhileAnotherThreadAborts) {
  stub();
  run_rank_processes(2, [](Group& control) {
    for (int round = 0; round < 50; ++round) {
      // Not the group itself: an abort would end the world.
      const auto one = nccl::Communicator::create(control, Deadline::after(20s));
      std::thread other([&] { one->family()->abort(); });
      while (one->family()->state_of(one->handle())) {
      }
      other.join();
      check(one->family()->has_given_back(), "nothing holds it");
    }
    check_all_given_back(50, 0);
  });
}

}  // namespace
}  // namespace tandem
