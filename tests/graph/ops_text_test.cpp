#include "graph/round_trip.h"
#include "ops/ops.h"

namespace tandem::testing {
namespace {

TEST(OpsText, RandomModulesOverAllOpsRoundTrip) {
  ASSERT_FALSE(all_ops().all().empty());
  expect_round_trips(all_ops(), 1000);
}

}  // namespace
}  // namespace tandem::testing
