// What Ctrl-C and SIGTERM do: the first lets a running step end, the second ends the program at once.
#pragma once

#include <string_view>

namespace tandem::cli {

// The hidden verb of rank processes.
inline constexpr std::string_view kRankVerb = "rank";

void catch_signals();
// The signal that came, 0 if none.
int signal_caught();
inline bool stop_requested() { return signal_caught() != 0; }

}  // namespace tandem::cli
