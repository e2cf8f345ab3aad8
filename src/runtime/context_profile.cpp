// Timing the steps of a run.
#include "runtime/context_bound.h"

namespace tandem {

RankContext::Timing::Timing(RankContext& context)
    : context_(context),
      watch_(context.device_.is_host() ? nullptr : context.device_.make_stopwatch()),
      clocks_(context.program().steps.size()) {}

std::int64_t RankContext::Timing::waited() const {
  if (watch_ || !context_.group_) return 0;
  return context_.group_->progress(context_.group_->rank()).waited_ns;
}

void RankContext::Timing::cut(Deadline deadline) {
  if (!watch_) return;
  const std::vector<std::int64_t> marks = watch_->read(deadline);
  for (std::size_t i = 0; read_ < count_; ++i, ++read_) {
    clocks_[read_].begin_ns = marks[2 * i];
    clocks_[read_].end_ns = marks[2 * i + 1];
  }
  watch_ = context_.device_.make_stopwatch();
}

std::vector<RankContext::StepClock> RankContext::Timing::read(Deadline deadline) {
  cut(deadline);
  clocks_.resize(count_);
  return std::move(clocks_);
}

void RankContext::run_timed(Bound& bound, std::span<std::byte* const> outputs) {
  Timing timing(*this);
  run_steps(bound, &timing);
  copy_outputs(bound, outputs);
  std::vector<StepClock> clocks;
  wait_with_others([&](Deadline deadline) { clocks = timing.read(deadline); });
  wait_for_stream();
  hook_(clocks);
}

}  // namespace tandem
