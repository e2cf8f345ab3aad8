// Recorded calls that ranks with a GPU each replay together, and the time of the slower rank.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "comm/group.h"
#include "device/cuda/runtime.h"
#include "device/device.h"

namespace tandem::bench {

class Replays {
 public:
  Replays(Group& control, Stream& stream, std::chrono::nanoseconds limit)
      : control_(control), stream_(stream), handle_(cuda::handle_of(stream)), limit_(limit) {
    for (cudaEvent_t* event : {&begin_, &end_}) cuda::check(cudaEventCreate(event), "making an event");
  }
  ~Replays() {
    for (cudaEvent_t event : {begin_, end_}) cudaEventDestroy(event);
  }
  Replays(const Replays&) = delete;

  // What `work` gives to the stream, after `first` was done once, so that what is loaded is loaded then. The caller destroys it.
  template <typename First, typename Work>
  cudaGraphExec_t record(const First& first, const Work& work) const {
    first();
    wait();
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    cuda::check(cudaStreamBeginCapture(handle_, cudaStreamCaptureModeThreadLocal), "recording");
    work();
    cuda::check(cudaStreamEndCapture(handle_, &graph), "recording");
    cuda::check(cudaGraphInstantiate(&exec, graph, 0), "recording");
    cudaGraphDestroy(graph);
    cuda::check(cudaGraphUpload(exec, handle_), "recording");
    wait();
    return exec;
  }

  // Microseconds of a replay that all ranks begin together.
  float replay(cudaGraphExec_t exec) const {
    control_.exchange({});
    cuda::check(cudaEventRecord(begin_, handle_), "timing");
    cuda::check(cudaGraphLaunch(exec, handle_), "replaying");
    cuda::check(cudaEventRecord(end_, handle_), "timing");
    wait();
    float milliseconds = 0;
    cuda::check(cudaEventElapsedTime(&milliseconds, begin_, end_), "timing");
    return milliseconds * 1000;
  }

  // The slower rank's median.
  float slowest(std::vector<float>& times) const {
    std::ranges::sort(times);
    float most = 0;
    for (const auto& blob : control_.exchange(std::as_bytes(std::span(&times[times.size() / 2], 1)))) {
      float theirs = 0;
      std::memcpy(&theirs, blob.data(), sizeof theirs);
      most = std::max(most, theirs);
    }
    return most;
  }

 private:
  void wait() const { stream_.wait(Deadline::after(limit_)); }

  Group& control_;
  Stream& stream_;
  cudaStream_t handle_;
  std::chrono::nanoseconds limit_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace tandem::bench
