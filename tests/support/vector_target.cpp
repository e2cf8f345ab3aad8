// Linked into programs whose tests also run as on the oldest processor we support: TANDEM_TEST_VECTORS=baseline keeps Highway from
// choosing anything better than the instruction set that the compiler was given.
#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <cstdlib>
#include <string>

namespace tandem::test {
namespace {

class VectorTarget : public testing::Environment {
 public:
  void SetUp() override {
    const char* wanted = std::getenv("TANDEM_TEST_VECTORS");
    if (!wanted) return;
    ASSERT_EQ(std::string(wanted), "baseline");
    hwy::SetSupportedTargetsForTest(HWY_STATIC_TARGET);
  }
};

[[maybe_unused]] const auto* const kVectorTarget = testing::AddGlobalTestEnvironment(new VectorTarget);

}  // namespace
}  // namespace tandem::test
