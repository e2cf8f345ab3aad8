// Where a device is in the steps that were given to it. Private to the files context*.cpp.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/context.h"

namespace tandem {

// Of steps given one by one, up to 64 moments of a run are marked with events; of a replay only how many steps it has.
class RankContext::Marks {
 public:
  explicit Marks(Device& device) : device_(device) {}
  // A run of so many steps is given to the stream next.
  void begin(std::size_t steps, Stream& stream);
  // The step was given. Without begin() before, as in what is recorded, nothing is marked.
  void pass(std::size_t step, Stream& stream);
  void end() { open_ = false; }
  // The steps are replayed, or recorded, all at once.
  void replay(std::size_t steps);

  struct Place {
    std::optional<std::size_t> step;  // the first that may not be over, where that is known
    std::string words;                // "in step 3 of 40"
  };
  // Throws the error of work that failed.
  Place find();

 private:
  Device& device_;
  std::size_t steps_ = 0, stride_ = 1, given_ = 0;  // an event after every `stride_` steps
  bool open_ = false, replay_ = false;
  std::vector<std::unique_ptr<Event>> events_;  // the first one before all steps
};

}  // namespace tandem
