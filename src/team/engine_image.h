// EngineImage: an engine, or its plan, in anonymous memory, for rank processes that cannot see what the leader holds.
#pragma once

#include "core/shared_memory.h"
#include "plan/plan.h"
#include "runtime/rank_engine.h"

namespace tandem {

// Writes the engine file of `plan`; `weights` is asked for the slices of `rank` where that is ≥ 0 (files that another tool made per
// rank), else for each distinct slice once.
SharedMemory make_engine_image(const Plan& plan, const WeightSource& weights, int rank, const WriteOptions& options = {});

// The plan alone, as JSON, and back.
SharedMemory make_plan_image(const Plan& plan);
std::string read_plan_image(int fd);

}  // namespace tandem
