// Which edges of the code under test an input takes: filled in by code compiled with -fsanitize-coverage=trace-pc.
#pragma once

#include <cstddef>

namespace tandem::fuzz {

void clear_coverage();
// Adds what the last input took to what is known; returns how much of it was new.
std::size_t merge_coverage();

}  // namespace tandem::fuzz
