// How far results of two models are apart.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "api/run/engine_data.h"
#include "tandem/tandem.h"

namespace tandem::testing {

// Of the outputs of rank 0, over the largest magnitude of the output.
inline double largest_difference(const RankArrays& a, const RankArrays& b) {
  double worst = 0;
  for (const auto& [name, list] : a) {
    const Tensor x = to_tensor(list[0]), y = to_tensor(b.at(name)[0]);
    double difference = 0, largest = 0;
    for (std::int64_t i = 0; i < x.count(); ++i) {
      difference = std::max(difference, std::fabs(x.at(i) - y.at(i)));
      largest = std::max(largest, std::fabs(x.at(i)));
    }
    EXPECT_GT(largest, 0) << name;
    worst = std::max(worst, difference / largest);
  }
  return worst;
}

}  // namespace tandem::testing
