// What `--profile` shows: the steps of a run by their time.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "tandem/tandem.h"

namespace tandem::cli {

using RankSteps = std::vector<std::vector<StepTime>>;  // per rank, in their order

// The median of each step's times over some runs. `outputs`, where given, are those of the last one.
RankSteps profile_often(Model& model, const RankArrays& inputs, int runs, const ProgressCallback& progress, RankArrays* outputs = nullptr);
// All steps of all ranks, longest first, and the sums per rank.
nlohmann::json steps_as_json(const RankSteps& ranks);
// The sums per rank, and the longest steps of the rank that is busiest.
void print_steps(const RankSteps& ranks);

}  // namespace tandem::cli
