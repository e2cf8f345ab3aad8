// What tests tell the library that stands in for NCCL (nccl_stub.cpp), and what it counted. One per process.
#pragma once

#include <atomic>

namespace tandem::test {

struct NcclStub {
  std::atomic<int> live{0};  // communicators that were made and not given back
  std::atomic<int> destroyed{0}, aborted{0};
  std::atomic<int> misuses{0};           // calls with a communicator that was given back
  std::atomic<int> calls{0};             // collectives, sends and receives
  std::atomic<int> buffers{0};           // that are registered
  std::atomic<bool> deaf{false};         // memory is not registered, without an error
  std::atomic<int> graphs{0};            // recordings that hold kernels: while there are any, none is given back
  std::atomic<bool> stuck{false};        // none is given back at all
  std::atomic<int> slow_ms{0};           // that giving one back takes
  std::atomic<bool> busy{false};         // what is called stays in progress
  std::atomic<bool> hasty{false};        // says that a split is done while it is under way
  std::atomic<void*> split_to{nullptr};  // where the last split begun will write
  std::atomic<int> trouble{0};           // of every communicator that lives, as an ncclResult_t
  // Whether this rank's GPU is in a collective that another rank has not begun.
  bool (*waits)() = nullptr;
};

}  // namespace tandem::test

// To be called before ranks are forked, for they meet in memory that it makes.
extern "C" tandem::test::NcclStub* nccl_stub();
