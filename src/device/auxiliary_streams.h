// AuxiliaryStreams: streams beside the one that a run is given, for kernels that do two things at a time.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "device/device.h"

namespace tandem {

// Used by one thread at a time, as its streams are.
class AuxiliaryStreams {
 public:
  // Of the thread's current device. Work of the first goes before that of other streams where the device can choose: it is short, and
  // waited for.
  AuxiliaryStreams(Device& device, int count);
  explicit AuxiliaryStreams(std::vector<std::unique_ptr<Stream>> own);

  std::span<Stream* const> streams() const { return streams_; }
  // From now on work goes to these streams of the caller's (cudaStream_t, borrowed) in their order; to streams of our own where one is null
  // or there are fewer. Throws Error(invalid_argument), and changes nothing, for more than there are, one that occurs twice, the default
  // stream and one of another device.
  void lend(std::span<void* const> handles);
  // Throws Error(invalid_argument) where one that was lent is `main` itself, or is recorded and `main` is not.
  void require_beside(Stream& main, Device& device) const;

 private:
  std::vector<std::unique_ptr<Stream>> own_;
  std::vector<Stream*> streams_;
  std::vector<bool> lent_;
};

}  // namespace tandem
