// Ranks of a group over peer memory in tests, and what they check there. On a machine with one GPU the ranks share it.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>

#include "comm/oracle.h"
#include "comm/peer/peer_group.h"
#include "core/check.h"
#include "device/cuda/runtime.h"
#include "support/emulated.h"

namespace tandem::test {

using peer::PeerGroup;
using peer::PeerOptions;

inline int peer_gpu_count() {
  int count = 0;
  const bool known = cudaGetDeviceCount(&count) == cudaSuccess;
  cudaGetLastError();
  return known ? count : 0;
}

inline int rank_count() {
  const char* given = std::getenv("TANDEM_TEST_RANKS");
  if (given) return std::atoi(given);
  return peer_gpu_count() > 1 ? std::min(peer_gpu_count(), peer::kMaxRanks) : 3;
}

// Longer than any of these tests should wait for a peer, shorter than anyone wants to wait for a test.
inline constexpr std::chrono::seconds kPatience(10);

inline PeerOptions test_options() {
  PeerOptions options;
  options.share_gpu = true;
  options.limit = kPatience;
  return options;
}

class Peers : public ::testing::Test {
 protected:
  void SetUp() override {
    if (peer_gpu_count() == 0) GTEST_SKIP() << "this machine has no GPU";
  }
};

// Where ranks are threads that share a GPU, the kernels of one may wait for another rank whose next call of CUDA waits for all kernels of
// the GPU: CUDA does so where it makes, maps and gives back memory, loads kernels and prepares recordings. So there each rank has all its
// memory before any kernel can wait, all kernels are loaded by then, and the ranks meet before what is left of such calls.
inline bool shares_gpu() { return rank_count() > peer_gpu_count(); }

// Then tests take fewer sizes.
inline bool is_slow() { return kEmulated || shares_gpu(); }

// A rank's memory where GPUs are shared. Given out again once nothing of it is in use.
class Arena {
 public:
  Arena();
  ~Arena();
  Arena(const Arena&) = delete;
  std::byte* take(std::size_t bytes);
  void give_back() { taken_ = --users_ == 0 ? 0 : taken_; }

 private:
  std::byte* memory_ = nullptr;
  std::size_t taken_ = 0;
  int users_ = 0;
};
inline thread_local Arena* arena = nullptr;  // of the PeerRank that lives in this thread, if GPUs are shared

// Memory of the current GPU; goes when what uses it has ended, before the PeerRank of the thread.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : bytes_(bytes) {
    const std::size_t all = std::max<std::size_t>(bytes, 1) + 16;
    if (arena) data_ = arena->take(all);
    else cuda::check(cudaMalloc(&data_, all), "allocating memory");
  }
  ~Buffer() {
    if (arena) arena->give_back();
    else cudaFree(data_);
  }
  Buffer(const Buffer&) = delete;
  // `offset`: of an address that is aligned to an element only.
  std::byte* at(std::size_t offset = 0) const { return static_cast<std::byte*>(data_) + offset; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  void poison(cudaStream_t stream) { cuda::check(cudaMemsetAsync(data_, 0x5a, bytes_ + 16, stream), "cudaMemset"); }

 private:
  void* data_ = nullptr;
  std::size_t bytes_;
};

// A rank of a group on GPUs, with a stream. Over peer memory, or by NCCL for the tests that are of both.
struct PeerRank {
  Group& control;
  std::shared_ptr<Device> device;
  OnDevice current;
  std::unique_ptr<Arena> memory;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<GpuGroup> group;
  cudaStream_t handle;

  // Collective.
  explicit PeerRank(Group& control, const PeerOptions& options = test_options()) : PeerRank(control, 1) {
    std::string why;
    group = peer::make_peer_group(control, *device, Deadline::after(kRendezvousDeadline), &why, options);
    if (!group) fail(ErrorCode::unsupported, "no group over peer memory: {}", why);
  }
  PeerRank(Group& control, std::string_view backend) : PeerRank(control, 1) {
    group = make_gpu_group(control, *device, {.backend = std::string(backend)}, nullptr);
  }
  ~PeerRank();
  PeerRank(const PeerRank&) = delete;

  PeerGroup& peers() const { return static_cast<PeerGroup&>(*group); }
  void wait() const {
    stream->wait(Deadline::after(2 * kPatience));
    group->throw_if_failed();
  }
  // Behind what the stream holds; return when it is done.
  void copy(void* to, const void* from, std::size_t bytes) const {
    cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, handle), "copying");
    stream->wait(Deadline::after(2 * kPatience));
  }
  // Before a call of CUDA that waits for the kernels of all ranks on the GPU: until none of them waits for this rank.
  void meet_if_shared() const {
    if (memory) control.exchange({});
  }

 private:
  PeerRank(Group& control, int threads);  // without a group
};

// Makes and checks a call on the GPU, as run_and_check() of the oracle does on the host. `shifted`: in memory that is aligned to an element
// only.
void check_on_gpu(const PeerRank& rank, Group& group, CollectiveCall call, const Shape& shape, std::uint64_t seed, bool in_place = false,
                  bool shifted = false);
// Every collective × reduction × dtype × axis; gives their number.
int every_cell(const PeerRank& rank, Group& group, const Shape& shape, std::uint64_t seed);

}  // namespace tandem::test
