// A stream beside a kernel's own one.
#pragma once

#include "device/cuda/runtime.h"

namespace tandem::cuda {

// A moment in the work of a stream that others wait for; both may be recorded.
class Moment {
 public:
  Moment() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event"); }
  ~Moment() { cudaEventDestroy(event_); }
  Moment(const Moment&) = delete;

  // What `later` is given from now on starts after what `earlier` was given before. Again and again.
  void order(cudaStream_t earlier, cudaStream_t later) const {
    mark(earlier);
    await(later);
  }
  void mark(cudaStream_t stream) const { check(cudaEventRecord(event_, stream), "recording an event"); }
  void await(cudaStream_t stream) const { check(cudaStreamWaitEvent(stream, event_, 0), "waiting for an event"); }

 private:
  cudaEvent_t event_ = nullptr;
};

// It begins where the kernel's stream stands and is waited for there. Its kernels are placed before those of others, which are the longer
// ones.
class Beside {
 public:
  Beside() {
    int least = 0, greatest = 0;
    check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for priorities of streams");
    check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "making a stream");
  }
  ~Beside() { cudaStreamDestroy(stream_); }
  Beside(const Beside&) = delete;

  cudaStream_t begin(cudaStream_t main) const {
    begun_.order(main, stream_);
    return stream_;
  }
  void end(cudaStream_t main) const { ended_.order(stream_, main); }

 private:
  cudaStream_t stream_ = nullptr;
  Moment begun_, ended_;
};

}  // namespace tandem::cuda
