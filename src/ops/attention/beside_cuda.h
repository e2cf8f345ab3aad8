// The order of a kernel's own stream and those beside it.
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

// Work beside that of a kernel's own stream: it begins where that stands and is waited for there.
class Beside {
 public:
  void begin(cudaStream_t main, cudaStream_t beside) const { begun_.order(main, beside); }
  void end(cudaStream_t main, cudaStream_t beside) const { ended_.order(beside, main); }

 private:
  Moment begun_, ended_;
};

}  // namespace tandem::cuda
