// What kernels are timed on.
#include "api/build/measure.h"

#include <gtest/gtest.h>

#include <set>

#include "ops/attention/operands.h"
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

}  // namespace
}  // namespace tandem
