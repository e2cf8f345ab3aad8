// Whether ranks whose calls go elsewhere find out that they make different ones.
#include "comm/shm/call_log.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>

#include "comm/ranks.h"
#include "comm/shm/shm_group.h"
#include "core/check.h"

namespace tandem {
namespace {

using namespace std::chrono_literals;

shm::CallLog log_of(Group& group) {
  shm::CallLog log(&dynamic_cast<shm::ShmGroup&>(group));
  group.exchange({});
  return log;
}

// What ends `work`; fails if nothing does.
Error ended(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing is told";
  return Error(ErrorCode::internal, "nothing is told");
}

TEST(CallLog, EqualCallsGoOn) {
  run_ranks(3, [](Group& group) {
    shm::CallLog log = log_of(group);
    for (int call = 0; call < 1000; ++call) {
      const char* what = call % 3 == 0 ? "x [8,32]" : "x [16,32]";
      log.begin(what);
      if (call % 100 == 50 && group.rank() == 1) log.undo(), log.begin(what);
      if (call % 7 == 0) group.exchange({});
    }
  });
}

TEST(CallLog, TheLaterOfTwoThatDifferNamesBoth) {
  run_ranks(2, [](Group& group) {
    shm::CallLog log = log_of(group);
    for (int call = 0; call < 5; ++call) log.begin("x [8,32]");
    if (group.rank() == 0) log.begin("x [8,32]");
    group.exchange({});
    const Error error = ended([&] {
      if (group.rank() == 0) group.exchange({}, Deadline::after(20s));  // until it hears of it
      else log.begin("x [16,32]");
    });
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    EXPECT_NE(error.message().find("ranks 0 and 1 disagree in call 6: rank 0 runs x [8,32], rank 1 runs x [16,32]"), std::string::npos)
        << error.what();
  });
}

TEST(CallLog, AtLeastOneOfTwoFindsOut) {
  for (int round = 0; round < 200; ++round)
    run_ranks(2, [&](Group& group) {
      shm::CallLog log = log_of(group);
      const Error error = ended([&] {
        log.begin(group.rank() == 0 ? "a" : "b");
        group.exchange({}, Deadline::after(20s));
        group.throw_if_failed();
      });
      EXPECT_EQ(error.code(), ErrorCode::mismatch) << error.what();
    });
}

TEST(CallLog, ANewOneKnowsNothingOfTheOneBefore) {
  run_ranks(2, [](Group& group) {
    for (const char* what : {"a", "b", "c"}) {
      shm::CallLog log = log_of(group);
      for (int call = 0; call < 10; ++call) log.begin(what);
      group.exchange({});
    }
  });
}

// It was too far ahead to be compared when it went astray.
TEST(CallLog, ALaterCallTellsOfAnEarlierOne) {
  run_ranks(2, [](Group& group) {
    shm::CallLog log = log_of(group);
    const auto calls = [&] {
      for (int call = 0; call < 100; ++call) log.begin(call == 3 && group.rank() == 1 ? "b" : "a");
    };
    if (group.rank() == 1) calls();
    group.exchange({});
    const Error error = ended([&] {
      if (group.rank() == 0) calls();
      else group.exchange({}, Deadline::after(20s));
    });
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    EXPECT_NE(error.message().find("one of them ran something else before"), std::string::npos) << error.what();
  });
}

TEST(CallLog, ARankThatLeavesItIsNotCompared) {
  run_ranks(2, [](Group& group) {
    shm::CallLog log = log_of(group), none(nullptr);
    for (int call = 0; call < 20; ++call) log.begin("a"), none.begin(group.rank() == 0 ? "a" : "b");
    group.exchange({});
    if (group.rank() == 0) log.leave();
    group.exchange({});
    for (int call = 0; call < 20; ++call) log.begin(group.rank() == 0 ? "a" : "b");
  });
}

}  // namespace
}  // namespace tandem
