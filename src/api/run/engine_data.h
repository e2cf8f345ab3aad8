// What an Engine holds.
#pragma once

#include <memory>
#include <vector>

#include "runtime/rank_engine.h"
#include "tandem/engine.h"

namespace tandem {

struct EngineData {
  std::vector<std::shared_ptr<const Plan>> plans;  // one for all ranks, or one per rank
  WeightSource weights;                            // keeps alive what it reads
  std::string path;                                // of an engine that came from a file; else empty
  bool has_weights = true;
  const Plan& plan() const { return *plans.at(0); }
};

Tensor to_tensor(const Array& array);
Array to_array(const Tensor& tensor);

}  // namespace tandem
