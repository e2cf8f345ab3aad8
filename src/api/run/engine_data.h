// What an Engine holds.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/rank_engine.h"
#include "tandem/engine.h"

namespace tandem {

using WeightBudget = std::optional<std::size_t>;  // ContextOptions::weight_budget_bytes

struct EngineData {
  std::vector<std::shared_ptr<const Plan>> plans;  // one for all ranks, or one per rank
  WeightSource weights;                            // keeps alive what it reads
  std::string path;                                // of an engine that came from a file; else empty
  bool own_plan = false;                           // the file has another plan than `plans` has, for the same weights
  bool has_weights = true;
  const Plan& plan() const { return *plans.at(0); }
  // Throw Error(mismatch) unless it can run: one that has no weights, one that was built for another GPU than rank 0 has here.
  void require_weights() const;
  void require_target() const;
  // The weights of one rank, loaded once for all its users of this process with the same budget. Callable from any thread, and waits for
  // one that is loading.
  std::shared_ptr<const RankEngine> rank_engine(int rank, const LoadProgress& progress = {}, WeightBudget budget = {}) const;
  // Throws Error(unsupported) for one of CPU ranks.
  void check_budget(WeightBudget budget) const;
  std::shared_ptr<const Plan> plan_of(int rank) const { return plans.at(plans.size() == 1 ? 0 : static_cast<std::size_t>(rank)); }

  // A copy starts without any: it may be given other plans or weights.
  struct LoadedRanks {
    LoadedRanks() = default;
    LoadedRanks(const LoadedRanks&) {}
    LoadedRanks& operator=(const LoadedRanks&) = delete;
    std::recursive_mutex mutex;  // who is told how far loading is may use the same engine
    std::map<std::pair<int, WeightBudget>, std::weak_ptr<const RankEngine>> by_rank;
  };
  mutable LoadedRanks loaded;
};

Tensor to_tensor(const Array& array);
Array to_array(const Tensor& tensor);

}  // namespace tandem
