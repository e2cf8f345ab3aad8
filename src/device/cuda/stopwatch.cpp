#include "device/cuda/stopwatch.h"

#include <atomic>
#include <thread>
#include <vector>

#include "device/cuda/runtime.h"

namespace tandem::cuda {
namespace {

// Marks between two gates: fewer launches than a stream takes before it holds up the caller.
constexpr std::size_t kMarksPerGate = 64;
// So that work which waits for the caller cannot wait for ever.
constexpr std::int64_t kGateLimitNs = 200'000'000;

using Gate = std::shared_ptr<std::atomic<bool>>;

void pass(void* gate) {
  const std::unique_ptr<Gate> mine(static_cast<Gate*>(gate));
  for (const std::int64_t begin = monotonic_ns(); !**mine && monotonic_ns() - begin < kGateLimitNs;)
    std::this_thread::sleep_for(std::chrono::microseconds(5));
}

// Events in the stream. The stream stops at a gate until the work behind it has been given, so that what is measured is how long the
// GPU works, not how long the host takes to start the kernels.
class Events final : public Stopwatch {
 public:
  ~Events() override {
    open();
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }

  void mark(Stream& stream) override {
    if (events_.size() % kMarksPerGate == 0) close(stream);
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "making an event");
    events_.push_back(event);
    check(cudaEventRecord(event, handle_of(stream)), "recording an event");
    stream_ = &stream;
  }

  std::vector<std::int64_t> read(Deadline deadline) override {
    open();
    std::vector<std::int64_t> marks;
    if (events_.empty()) return marks;
    stream_->wait(deadline);
    const std::int64_t now = monotonic_ns();
    for (cudaEvent_t event : events_) {
      float before_end = 0;  // ms
      check(cudaEventElapsedTime(&before_end, event, events_.back()), "reading an event");
      marks.push_back(now - static_cast<std::int64_t>(static_cast<double>(before_end) * 1e6));
    }
    return marks;
  }

 private:
  void close(Stream& stream) {
    open();
    gate_ = std::make_shared<std::atomic<bool>>(false);
    auto copy = std::make_unique<Gate>(gate_);
    check(cudaLaunchHostFunc(handle_of(stream), pass, copy.get()), "stopping a stream");
    copy.release();
  }
  void open() {
    if (gate_) *gate_ = true;
  }

  std::vector<cudaEvent_t> events_;
  Gate gate_;
  Stream* stream_ = nullptr;
};

}  // namespace

std::unique_ptr<Stopwatch> make_stopwatch() { return std::make_unique<Events>(); }

}  // namespace tandem::cuda
