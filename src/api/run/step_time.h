// A step's time in words.
#pragma once

#include "plan/plan.h"
#include "tandem/profile.h"

namespace tandem {

// `Clock` has the fields step, begin_ns, end_ns and waited_ns.
template <typename Clock>
StepTime step_time(const Step& step, const Clock& clock, std::int64_t first_ns) {
  const auto seconds = [](std::int64_t ns) { return static_cast<double>(ns) * 1e-9; };
  return {.step = static_cast<std::size_t>(clock.step),
          .node = step.node,
          .op = step.op,
          .kernel = step.kernel,
          .communicates = step.communicates,
          .begin = seconds(clock.begin_ns - first_ns),
          .seconds = seconds(clock.end_ns - clock.begin_ns),
          .waiting = seconds(clock.waited_ns)};
}

}  // namespace tandem
