// How long a GPU works before and while what is compared is timed: products draw so much power that its clock falls within milliseconds, so
// that a short time measures what was before it.
#pragma once

namespace tandem::bench {

inline constexpr double kWarmSeconds = 0.1, kTimedSeconds = 0.05;

}  // namespace tandem::bench
