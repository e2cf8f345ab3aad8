// What it costs that a GPU counts the collectives that it has begun, where other ranks see it.
#pragma once

namespace tandem {
class Group;
}

namespace tandem::bench {

// Collective, on ranks with a GPU each. The same recorded calls with and without the words of progress, replayed by turns: all-reduces of 8
// KB, 64 KB and 1 MB, and a chain of 64 with a product after each. A line of JSON per row on rank 0: microseconds of one call with (`us`)
// and without, medians of the slower rank, and `cost`, their ratio. Throws Error(internal) where a sum is wrong.
void run_supervision(Group& control);

}  // namespace tandem::bench
