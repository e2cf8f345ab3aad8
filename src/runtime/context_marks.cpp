#include "runtime/context_marks.h"

#include <fmt/format.h>

#include <algorithm>

namespace tandem {
namespace {

constexpr std::size_t kMostMarks = 64;

}  // namespace

void RankContext::Marks::begin(std::size_t steps, Stream& stream) {
  steps_ = steps;
  stride_ = std::max<std::size_t>(1, (steps + kMostMarks - 1) / kMostMarks);
  given_ = 0;
  open_ = true;
  replay_ = false;
  while (events_.size() < steps / stride_ + 1) events_.push_back(device_.make_event());
  events_[0]->record(stream);
}

void RankContext::Marks::pass(std::size_t step, Stream& stream) {
  if (!open_ || (step + 1) % stride_ != 0) return;
  events_[++given_]->record(stream);
}

void RankContext::Marks::replay(std::size_t steps) {
  steps_ = steps;
  open_ = false;
  replay_ = true;
}

RankContext::Marks::Place RankContext::Marks::find() {
  if (replay_) return {{}, fmt::format("in a replay of {} steps", steps_)};
  if (events_.empty()) return {};
  if (!events_[0]->passed()) return {{}, "before its first step: other work of the stream is not done"};
  std::size_t over = 0;
  while (over < given_ && events_[over + 1]->passed()) ++over;
  const std::size_t first = over * stride_, last = std::min(first + stride_, steps_);
  if (first >= steps_) return {{}, "after its last step"};
  if (last - first == 1) return {first, fmt::format("in step {} of {}", first, steps_)};
  return {first, fmt::format("in one of the steps {} to {} of {}", first, last - 1, steps_)};
}

}  // namespace tandem
