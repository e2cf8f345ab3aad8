// What kernels are timed on.
#include "api/build/measure.h"

#include <gtest/gtest.h>

#include <set>

#include "core/check.h"
#include "ops/attention/operands.h"
#include "ops/kernel.h"
#include "ops/ops.h"

namespace tandem {
namespace {

OpCall call_of(const OpDef& op, std::vector<std::optional<Type>> operands, const NamedAttributes& attributes = {}) {
  OpCall call;
  call.op = &op;
  call.attributes = Attributes(&op.fields);
  for (const auto& [name, value] : attributes) call.attributes.set(name, value);
  call.operands = std::move(operands);
  call.results = op.infer(call);
  return call;
}

std::set<std::int64_t> values_of(const Tensor& tensor) {
  std::set<std::int64_t> values;
  for (std::int64_t i = 0; i < tensor.count(); ++i) values.insert(tensor.int_at(i));
  return values;
}

TEST(TrialOperands, IndicesNameWhatExists) {
  for (const DType dtype : {DType::i32, DType::i64}) {
    const OpCall gather = call_of(*all_ops().find("Gather"), {Type{DType::f32, {5, 3}}, Type{dtype, {200}}}, {{"axis", std::int64_t{1}}});
    EXPECT_EQ(values_of(trial_operand(gather, 1, 7)), (std::set<std::int64_t>{0, 1, 2}));
    const OpCall nd = call_of(*all_ops().find("GatherND"), {Type{DType::f32, {9, 4, 6}}, Type{dtype, {300, 2}}});
    EXPECT_EQ(values_of(trial_operand(nd, 1, 7)), (std::set<std::int64_t>{0, 1, 2, 3}));
    EXPECT_EQ(values_of(trial_operand(call_of(*all_ops().find("Gather"), {Type{DType::f32, {0, 3}}, Type{dtype, {2}}}), 1, 7)),
              (std::set<std::int64_t>{0}));
  }
}

TEST(TrialOperands, AttentionHasWorkToDo) {
  const Type x{DType::f16, {2, 4, 8, 16}};
  const OpCall call = call_of(ops::Attention, {x, x, x, Type{DType::boolean, {8, 8}}, Type{DType::i32, {2}}, Type{DType::i64, {2}}});
  EXPECT_EQ(values_of(trial_operand(call, attention::kMask, 7)), (std::set<std::int64_t>{1}));
  for (const std::size_t lengths : {attention::kQueryLengths, attention::kKeyLengths})
    EXPECT_GE(*values_of(trial_operand(call, lengths, 7)).begin(), 8);
  const Tensor q = trial_operand(call, attention::kQ, 7), again = trial_operand(call, attention::kQ, 7),
               k = trial_operand(call, attention::kK, 8);
  std::set<double> different;
  for (std::int64_t i = 0; i < q.count(); ++i) {
    EXPECT_LE(std::abs(q.at(i)), 1);
    EXPECT_EQ(q.at(i), again.at(i));
    different.insert(q.at(i) - k.at(i));
  }
  EXPECT_GT(different.size(), 100u);
}

// Of a library that proposes what it then cannot run.
class Proposed final : public PreparedKernel {
 public:
  explicit Proposed(bool able) : able_(able) {}
  void run(const RunArgs&) const override {
    if (!able_) fail(ErrorCode::unsupported, "the library cannot run it");
  }

 private:
  bool able_;
};
std::unique_ptr<PreparedKernel> prepare_proposed(const PrepareArgs& args) { return std::make_unique<Proposed>(args.algorithm == "able"); }

TEST(Trials, AlgorithmsThatCannotRunAreLeftOut) {
  const OpCall call = call_of(*all_ops().find("Relu"), {Type{DType::f32, {4}}});
  const Measure measure = make_measure("cpu", 1);
  KernelDef kernel = {.name = "proposed", .op = "Relu", .prepare = prepare_proposed};
  kernel.algorithms = [](const PrepareArgs&) { return std::vector<std::string>{"unable", "able", "unable too"}; };
  EXPECT_EQ(measure({kernel, call, {false}}).algorithm, "able");
  kernel.algorithms = [](const PrepareArgs&) { return std::vector<std::string>{"unable", "unable too"}; };
  EXPECT_THROW(measure({kernel, call, {false}}), Error);
}

}  // namespace
}  // namespace tandem
