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

// Memory of the current GPU; goes when what uses it has ended. cudaFree() may wait for all kernels of a GPU: where ranks share one,
// another's may wait for the rank that frees, so memory is of a pool there.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : bytes_(bytes), of_pool_(rank_count() > peer_gpu_count()) {
    const std::size_t all = std::max<std::size_t>(bytes, 1) + 16;
    cuda::check(of_pool_ ? cudaMallocAsync(&data_, all, cudaStreamPerThread) : cudaMalloc(&data_, all), "allocating memory");
    if (of_pool_) cuda::check(cudaStreamSynchronize(cudaStreamPerThread), "allocating memory");
  }
  ~Buffer() {
    if (of_pool_) cudaFreeAsync(data_, cudaStreamPerThread);
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
  bool of_pool_;
};

// A rank of a group on GPUs, with a stream. Over peer memory, or by NCCL for the tests that are of both.
struct PeerRank {
  std::shared_ptr<Device> device;
  OnDevice current;
  std::unique_ptr<GpuGroup> group;
  std::unique_ptr<Stream> stream;
  cudaStream_t handle;

  explicit PeerRank(Group& control, const PeerOptions& options = test_options())
      : device(open_device("cuda", control.rank())), current(*device), stream(device->make_stream(1)), handle(cuda::handle_of(*stream)) {
    std::string why;
    group = peer::make_peer_group(control, *device, Deadline::after(kRendezvousDeadline), &why, options);
    if (!group) fail(ErrorCode::unsupported, "no group over peer memory: {}", why);
  }
  PeerRank(Group& control, std::string_view backend)
      : device(open_device("cuda", control.rank())),
        current(*device),
        group(make_gpu_group(control, *device, {.backend = std::string(backend)}, nullptr)),
        stream(device->make_stream(1)),
        handle(cuda::handle_of(*stream)) {}
  PeerGroup& peers() const { return static_cast<PeerGroup&>(*group); }
  void wait() const {
    stream->wait(Deadline::after(2 * kPatience));
    group->throw_if_failed();
  }
};

// Makes and checks a call on the GPU, as run_and_check() of the oracle does on the host. `shifted`: in memory that is aligned to an element
// only.
void check_on_gpu(const PeerRank& rank, Group& group, CollectiveCall call, const Shape& shape, std::uint64_t seed, bool in_place = false,
                  bool shifted = false);
// Every collective × reduction × dtype × axis; gives their number.
int every_cell(const PeerRank& rank, Group& group, const Shape& shape, std::uint64_t seed);

}  // namespace tandem::test
