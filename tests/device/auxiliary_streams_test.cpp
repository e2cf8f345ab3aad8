#include "device/auxiliary_streams.h"

#include <gtest/gtest.h>

#include <array>

#include "support/thrown.h"

namespace tandem {
namespace {

using testing::thrown;

// A stream of GPU 0; handles from 1000 on are streams of another GPU, as CudaStream finds out.
class FakeStream final : public Stream {
 public:
  explicit FakeStream(void* own) : own_(own), current_(own) {}
  void wait(Deadline) override {}
  void redirect(void* handle) override {
    if (reinterpret_cast<std::uintptr_t>(handle) >= 1000) throw Error(ErrorCode::invalid_argument, "the stream is of GPU 1");
    current_ = handle ? handle : own_;
  }
  void* native() const override { return current_; }

 private:
  void *own_, *current_;
};

void* handle(std::uintptr_t number) { return reinterpret_cast<void*>(number); }

class Auxiliary : public ::testing::Test {
 protected:
  static std::vector<std::unique_ptr<Stream>> fakes() {
    std::vector<std::unique_ptr<Stream>> streams;
    for (const std::uintptr_t own : {101, 102}) streams.push_back(std::make_unique<FakeStream>(handle(own)));
    return streams;
  }
  std::vector<std::uintptr_t> in_use() const {
    std::vector<std::uintptr_t> handles;
    for (const Stream* stream : streams_.streams()) handles.push_back(reinterpret_cast<std::uintptr_t>(stream->native()));
    return handles;
  }
  void lend(std::vector<void*> handles) { streams_.lend(handles); }
  void expect_refused(const std::vector<void*>& handles, const std::string& words) {
    const auto before = in_use();
    const Error error = thrown([&] { streams_.lend(handles); });
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(error.message().find(words), std::string::npos) << error.what();
    EXPECT_EQ(in_use(), before);
  }
  AuxiliaryStreams streams_{fakes()};
};

using Handles = std::vector<std::uintptr_t>;

TEST_F(Auxiliary, OwnOnesServeWhereNoneAreLent) {
  EXPECT_EQ(in_use(), (Handles{101, 102}));
  lend({handle(7)});
  EXPECT_EQ(in_use(), (Handles{7, 102}));
  lend({nullptr, handle(8)});
  EXPECT_EQ(in_use(), (Handles{101, 8}));
  lend({handle(8), handle(7)});
  EXPECT_EQ(in_use(), (Handles{8, 7}));
  lend({});
  EXPECT_EQ(in_use(), (Handles{101, 102}));
}

TEST_F(Auxiliary, WhatCannotServeIsRefusedAndChangesNothing) {
  for (int round = 0; round < 2; ++round) {
    expect_refused({handle(7), handle(8), handle(9)}, "3 auxiliary streams are given, the kernels use 2 at most");
    expect_refused({handle(7), handle(7)}, "auxiliary streams 0 and 1 are the same");
    expect_refused({nullptr, handle(1)}, "auxiliary stream 1 is the default stream");
    expect_refused({handle(9), handle(1000)}, "the stream is of GPU 1");
    lend({handle(7)});  // and again with one that is lent
  }
  lend({nullptr, nullptr});  // the contexts' own, however often
}

TEST_F(Auxiliary, TheStreamOfARunIsNotBesideItself) {
  const std::shared_ptr<Device> device = open_device("cpu", 0);
  FakeStream main(handle(50));
  main.redirect(handle(7));
  streams_.require_beside(main, *device);
  lend({nullptr, handle(7)});
  const Error error = thrown([&] { streams_.require_beside(main, *device); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  EXPECT_NE(error.message().find("auxiliary stream 1 is the stream that the work is given to"), std::string::npos) << error.what();
  main.redirect(nullptr);
  streams_.require_beside(main, *device);
}

TEST_F(Auxiliary, DevicesMakeThem) {
  const std::shared_ptr<Device> device = open_device("cpu", 0);
  EXPECT_EQ(AuxiliaryStreams(*device, 2).streams().size(), 2u);
  EXPECT_TRUE(AuxiliaryStreams(*device, 0).streams().empty());
}

}  // namespace
}  // namespace tandem
