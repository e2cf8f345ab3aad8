// NCCL at its fastest, as a peer to time: memory of its own that all ranks have registered as a symmetric window. Tandem registers none,
// for NCCL's kernels on windows do not end when it is told to abort (docs/gpu.md).
#pragma once

#include "comm/nccl/communicator.h"
#include "core/check.h"
#include "device/cuda/library.h"

namespace tandem::bench {

class NcclWindow {
 public:
  // Collective, of equally many bytes on all ranks, on the thread's current GPU. Throws Error(unsupported) where NCCL is older than 2.27.
  NcclWindow(Group& control, nccl::Communicator& comm, std::size_t bytes, Deadline deadline) : comm_(comm) {
    nccl::check(function<decltype(ncclMemAlloc)>("ncclMemAlloc")(&memory_, bytes), "allocating a window");
    const ncclResult_t result = function<decltype(ncclCommWindowRegister)>("ncclCommWindowRegister")(comm_.handle(), memory_, bytes,
                                                                                                     &window_, NCCL_WIN_COLL_SYMMETRIC);
    // It may say that it is done while it is not.
    comm_.settle(result == ncclSuccess ? ncclInProgress : result, "registering a window", control, deadline.limit());
    tandem::check(window_ != nullptr, "NCCL takes its own memory as a window");
  }
  NcclWindow(const NcclWindow&) = delete;
  // When no graph holds kernels on it.
  ~NcclWindow() {
    function<decltype(ncclCommWindowDeregister)>("ncclCommWindowDeregister")(comm_.handle(), window_);
    function<decltype(ncclMemFree)>("ncclMemFree")(memory_);
  }

  std::byte* data() const { return static_cast<std::byte*>(memory_); }

 private:
  template <typename F>
  static F* function(const char* name) {
    return cuda::library(cuda::Which::nccl).function<F>(name);
  }

  nccl::Communicator& comm_;
  void* memory_ = nullptr;
  ncclWindow_t window_ = nullptr;
};

}  // namespace tandem::bench
