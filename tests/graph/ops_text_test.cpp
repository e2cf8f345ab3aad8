#include "graph/random_module.h"
#include "graph/round_trip.h"
#include "ops/ops.h"

namespace tandem::testing {
namespace {

TEST(OpsText, RandomModulesOverAllOpsRoundTrip) {
  ASSERT_FALSE(all_ops().all().empty());
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    expect_round_trip(*random_module(seed, all_ops()), "seed " + std::to_string(seed));
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace tandem::testing
