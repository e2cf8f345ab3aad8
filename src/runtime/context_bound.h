// What a RankContext keeps per bound shape. Private to the files context*.cpp.
#pragma once

#include <list>
#include <memory>
#include <vector>

#include "core/check.h"
#include "runtime/context.h"

namespace tandem {

inline std::string label(const Step& step) { return fmt::format("{} \"{}\"", step.op, step.node); }

struct RankContext::Launch {
  std::unique_ptr<PreparedKernel> kernel;
  std::uint32_t operands = 0, results = 0;
  bool communicates = false;
  bool starts_early = false;
  std::uint64_t resident = 0;  // RunArgs has them
  const std::byte* packed = nullptr;
};

// The steps behind one that measures a symbol, to the next one that does, prepared for what was measured.
struct RankContext::Tail {
  std::size_t first = 0;
  SymbolValues symbols;
  std::vector<Launch> launches;
  std::size_t workspace_bytes = 0;
};

struct RankContext::Bound {
  std::size_t profile = 0;
  SymbolValues symbols;
  std::string shapes;   // the profile, where there are several, and those of the inputs, in words
  bool agreed = false;  // with the other ranks, on the collectives
  MemoryPlan memory;
  std::size_t workspace_bytes = 0;
  std::size_t needed_bytes() const { return memory.arena_bytes + workspace_bytes + kAlignment; }
  std::vector<Launch> launches;  // per step, to the first that measures a symbol
  std::list<Tail> tails;         // most recently used first
  DeviceMemory tail_workspace;   // for tails that need more than the arena has for the steps before
  // Where inputs and outputs of run() lie on a device that does not read the host's memory.
  DeviceMemory staging;
  std::vector<std::byte*> staged;  // inputs, then outputs
  // The work as it was recorded for the addresses of a call: inputs, outputs, arena, event. Empty after the first call with them.
  struct Recorded {
    std::vector<const std::byte*> addresses;
    std::unique_ptr<Recording> recording;
  };
  std::list<Recorded> recorded;  // most recently used first
};

// The times of one run. Between two kernels of a CPU everything is cold: there nothing is called or made but the clock.
class RankContext::Timing {
 public:
  explicit Timing(RankContext& context);
  void begin_step(std::size_t step, bool communicates) {
    StepClock& clock = clocks_[count_];
    clock.step = step;
    if (communicates) clock.waited_ns = -waited();
    if (watch_) watch_->mark(*context_.stream_);
    else clock.begin_ns = monotonic_ns();
  }
  void end_step(bool communicates) {
    StepClock& clock = clocks_[count_++];
    if (watch_) watch_->mark(*context_.stream_);
    else clock.end_ns = monotonic_ns();
    if (communicates) clock.waited_ns += waited();
  }
  // Before the run waits for what was given so far, which a watch may hold back: reads that, and begins anew.
  void cut(Deadline deadline);
  // Waits until the work is done.
  std::vector<StepClock> read(Deadline deadline);

 private:
  // What this rank has waited in collectives so far; 0 where that is not known when a step has been given to its device.
  std::int64_t waited() const;
  RankContext& context_;
  std::unique_ptr<Stopwatch> watch_;  // null on a CPU, whose kernels are done when they return
  std::vector<StepClock> clocks_;
  std::size_t count_ = 0;  // steps that have ended
  std::size_t read_ = 0;   // of these, steps whose times are known
};

// Holds the RankContext for one call, in whose thread its device is the current one.
class RankContext::Turn {
 public:
  explicit Turn(RankContext& context) : claim_(context.busy_), on_device_(context.device_) {}

 private:
  struct Claim {
    explicit Claim(std::atomic<bool>& busy) : busy_(busy) {
      if (busy_.exchange(true))
        fail(ErrorCode::invalid_argument, "a context serves one thread at a time, and another call is still running");
    }
    ~Claim() { busy_ = false; }
    std::atomic<bool>& busy_;
  };
  Claim claim_;
  OnDevice on_device_;
};

}  // namespace tandem
