// The room of one context in which streamed weights arrive just before the steps that read them, and the stream that copies them there.
#pragma once

#include <memory>
#include <vector>

#include "runtime/rank_engine.h"

namespace tandem {

// Steps are given to a stream one by one, in the order of the program; copies run beside them in a stream of their own, as far ahead as
// the ring has room. Where the steps are recorded, so are the copies. Used by one thread at a time.
class WeightRing {
 public:
  // `memory`: ring_bytes of the engine's streaming, on its device.
  WeightRing(std::shared_ptr<const RankEngine> engine, DeviceMemory memory);
  std::byte* data() const { return memory_.data(); }

  // A run of this program is given to the stream next: copies begin after what was given to it before.
  void begin(std::size_t program, Stream& stream);
  // What is given to the stream from now on finds the weights of the step.
  void before(std::size_t step, Stream& stream);
  // The step was given: copies that wait for the room of its weights are given too.
  void after(std::size_t step, Stream& stream);
  // What is given to the stream from now on starts after all copies, also where a run ended early.
  void end(Stream& stream) noexcept;

 private:
  void give(std::size_t step_count);

  std::shared_ptr<const RankEngine> engine_;
  DeviceMemory memory_;
  std::unique_ptr<Stream> copies_;
  std::vector<std::unique_ptr<Stream>> held_;  // that are part of callers' recordings
  std::unique_ptr<Event> begun_, passed_;
  std::vector<std::unique_ptr<Event>> arrived_;  // per fetch
  const std::vector<Fetch>* fetches_ = nullptr;  // of the run at hand
  std::size_t given_ = 0, awaited_ = 0;          // of them
};

}  // namespace tandem
