// The memory plan of one bound shape: where each temporary lies in the arena. The same on every rank.
#pragma once

#include <cstddef>
#include <vector>

#include "device/device.h"
#include "plan/plan.h"

namespace tandem {

inline constexpr std::size_t kAlignment = kDeviceAlignment;

struct MemoryPlan {
  std::vector<int> root;            // per value: the value whose memory it lies in
  std::vector<std::size_t> offset;  // per value: in the arena, for temporaries that are their own root
  std::vector<std::size_t> size;    // per value, bytes
  std::size_t arena_bytes = 0;
};

// Extents that are measured in a run count as the most they can be. `outside[v]`: the root v lies in memory of the caller and gets no
// place.
MemoryPlan plan_memory(const Program& program, const SymbolValues& symbols, const std::vector<bool>& outside);
std::vector<int> alias_roots(const Program& program);
// Temporaries that an output can be written to directly: roots of exactly one output. Per value: the output's number or -1.
std::vector<int> direct_outputs(const Program& program);
// The last step that reads an input of the program; -1: none does; the number of steps: an output is an input, and is copied at the end.
int last_step_that_reads_inputs(const Program& program);

}  // namespace tandem
