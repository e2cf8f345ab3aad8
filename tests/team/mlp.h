// A small model, built for a mesh, and what it computes by plain loops.
#pragma once

#include <string>
#include <vector>

#include "build/build.h"
#include "graph/builder.h"
#include "ops/ops.h"
#include "passes/shard.h"
#include "runtime/symbols.h"
#include "team/team.h"

namespace tandem {

inline constexpr std::int64_t kWidth = 4, kHidden = 8, kRows = 6;

struct Built {
  std::shared_ptr<Module> module;
  std::shared_ptr<const Plan> plan;
  WeightSource weights() const;
};

// y = relu(x w1) w2 over x[B,4]; with `lookup` x are the rows of a table [6,4] that an input ids[B] names.
Built build_mlp(const std::string& mesh, bool lookup = false);
std::vector<double> expected(const std::vector<double>& x);
std::vector<double> ramp(std::int64_t rows);
// ids, and the x that the table has for them.
Tensor ids_of(const std::vector<std::int64_t>& ids);
std::vector<double> looked_up(const std::vector<std::int64_t>& ids);

// The test program as a rank process (rank_main.cpp).
std::vector<std::string> own_ranks();

}  // namespace tandem
