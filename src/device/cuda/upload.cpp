// Weights to a GPU: threads copy pieces of the host's memory, which a mapped file brings in as they read it, into pinned buffers, from
// where the GPU fetches them while the next is filled. One thread alone reads slower than the bus carries.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <thread>
#include <vector>

#include "core/check.h"
#include "device/cuda/runtime.h"
#include "device/cuda/trouble.h"
#include "device/upload.h"

namespace tandem {
namespace cuda {
namespace {

constexpr std::size_t kPiece = std::size_t{8} << 20;
constexpr std::size_t kFewBytes = std::size_t{64} << 20;  // below, pinning memory takes longer than it saves
constexpr unsigned kMostThreads = 8;

// What one thread works with.
class Lane {
 public:
  Lane() = default;
  void open() {
    check(cudaGetDevice(&ordinal_), "asking for the current GPU");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
    for (Buffer& buffer : buffers_) {
      check(cudaHostAlloc(&buffer.memory, kPiece, cudaHostAllocDefault), "pinning memory of the host");
      check(cudaEventCreateWithFlags(&buffer.fetched, cudaEventDisableTiming), "making an event");
    }
  }
  ~Lane() {
    for (const Buffer& buffer : buffers_) free_host(buffer.memory);  // not before copies from it are done
    if (any_lost()) return;
    for (const Buffer& buffer : buffers_)
      if (buffer.fetched) cudaEventDestroy(buffer.fetched);
    if (stream_) cudaStreamDestroy(stream_);
  }
  Lane(const Lane&) = delete;

  void copy(const Upload& piece, Deadline deadline) {
    Buffer& buffer = buffers_[next_++ % buffers_.size()];
    wait(buffer.fetched, deadline);
    std::memcpy(buffer.memory, piece.from, piece.bytes);
    check(cudaMemcpyAsync(piece.to, buffer.memory, piece.bytes, cudaMemcpyHostToDevice, stream_), "copying weights");
    check(cudaEventRecord(buffer.fetched, stream_), "recording an event");
  }

  void finish(Deadline deadline) {
    for (const Buffer& buffer : buffers_) wait(buffer.fetched, deadline);
  }

 private:
  struct Buffer {
    void* memory = nullptr;
    cudaEvent_t fetched = nullptr;
  };

  // An event that was never recorded is over.
  void wait(cudaEvent_t event, Deadline deadline) {
    for (;;) {
      const cudaError_t status = cudaEventQuery(event);
      if (status != cudaErrorNotReady) return check(status, "copying weights");
      if (deadline.expired()) {
        const Error late(ErrorCode::timeout, fmt::format("weights did not reach the GPU within {:.1f} s",
                                                         std::chrono::duration<double>(deadline.limit()).count()));
        lose_until_done(ordinal_, stream_, late);
        throw late;
      }
      std::this_thread::yield();
    }
  }

  int ordinal_ = 0;
  cudaStream_t stream_ = nullptr;
  std::array<Buffer, 2> buffers_;
  std::size_t next_ = 0;
};

std::vector<Upload> cut(std::span<const Upload> whole) {
  std::vector<Upload> pieces;
  for (const Upload& one : whole)
    for (std::size_t at = 0; at < one.bytes; at += kPiece) pieces.push_back({one.to + at, one.from + at, std::min(kPiece, one.bytes - at)});
  return pieces;
}

}  // namespace
}  // namespace cuda

void upload_to_cuda(Device& device, std::span<const Upload> whole, Deadline deadline) {
  using namespace cuda;
  const std::vector<Upload> pieces = cut(whole);
  std::size_t total = 0;
  for (const Upload& piece : pieces) total += piece.bytes;
  if (total < kFewBytes) {
    const std::unique_ptr<Stream> stream = device.make_stream(1);
    for (const Upload& piece : pieces) device.copy(piece.to, piece.from, piece.bytes, *stream);
    return stream->wait(deadline);
  }
  std::atomic<std::size_t> next{0};
  const auto lanes = std::min(kMostThreads, std::max(2u, std::thread::hardware_concurrency() / 2));
  std::vector<std::exception_ptr> errors(lanes);
  std::vector<std::jthread> threads;
  for (std::exception_ptr& error : errors)
    threads.emplace_back([&] {
      try {
        const BesideRecordings allowed;
        check(cudaSetDevice(cuda_number(device)), "choosing a GPU");
        Lane lane;
        lane.open();
        for (std::size_t i; (i = next++) < pieces.size();) lane.copy(pieces[i], deadline);
        lane.finish(deadline);
      } catch (...) {
        error = std::current_exception();
        next = pieces.size();
      }
    });
  threads.clear();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

bool is_read_late_by_cuda(const void* memory) {
  cudaPointerAttributes found{};
  cuda::check(cudaPointerGetAttributes(&found, memory), "asking what memory this is");
  return found.type == cudaMemoryTypeHost || found.type == cudaMemoryTypeManaged;
}

int cuda_number(const Device& device) { return static_cast<const cuda::CudaDevice&>(device).ordinal(); }

}  // namespace tandem
