// What kernels of attention over ranks refuse, and what they say they send.
#include <gtest/gtest.h>

#include "comm/ranks.h"
#include "core/check.h"
#include "kernels/attention_ranks_case.h"
#include "ops/attention/operands.h"
#include "ops/shape_rules.h"

namespace tandem::test {
namespace {

using namespace attention;

OpCall call_with(std::vector<std::pair<std::string, AttributeValue>> attributes, std::int64_t heads, std::int64_t kv_heads) {
  const Shape q = {1, heads, 4, 8}, k = {1, kv_heads, 4, 8};
  return call_of({.kernel = "",
                  .op = "Attention",
                  .attributes = std::move(attributes),
                  .operands = {Tensor(DType::f32, q), Tensor(DType::f32, k), Tensor(DType::f32, k)}});
}

std::string refusal(std::string_view kernel, const OpCall& call) { return find_kernel(kernel)->refuse(call).value_or(""); }

TEST(AttentionRefusals, SayWhy) {
  const AttributeValue three = std::int64_t{3};
  EXPECT_EQ(refusal("attention_all_to_all", call_with({{"num_ranks", three}}, 6, 2)),
            "its 6 query and 2 kv heads do not divide by 3 ranks");
  EXPECT_EQ(refusal("attention_all_to_all", call_with({{"num_ranks", three}}, 6, 3)), "");
  EXPECT_EQ(refusal("attention_ring", call_with({}, 6, 3)), "it is for several ranks");
  EXPECT_EQ(refusal("attention_ring", call_with({{"num_ranks", three}, {"split", std::string("kv")}}, 6, 3)), "it is for split='qkv'");
  EXPECT_EQ(refusal("attention_parts", call_with({{"num_ranks", three}}, 6, 3)), "it is for split='kv'");
  EXPECT_EQ(refusal("attention_balanced", call_with({{"num_ranks", three}}, 6, 3)), "all rows cost the same");
  const AttributeValue causal = std::string("lower_right");
  OpCall late = call_with({{"num_ranks", three}, {"causal", causal}}, 6, 3);
  EXPECT_EQ(refusal("attention_balanced", late), "");
  for (const auto& [mask, reason] : {std::pair{Shape{12}, ""}, {Shape{6, 1, 12}, ""}, {Shape{4, 12}, "its mask differs by rows"}}) {
    late.operands.resize(4);
    late.operands[kMask] = Type{DType::boolean, dims_of_shape(mask)};
    EXPECT_EQ(refusal("attention_balanced", late), reason);
  }
  late.attributes.set("layout", std::string("zigzag"));
  EXPECT_EQ(refusal("attention_balanced", late), "it is for layout='contiguous'");
  for (const char* algorithm : {"all_gather", "all_to_all", "ring"})
    for (const char* kernel : {"all_gather", "all_to_all", "ring"}) {
      const OpCall call = call_with({{"num_ranks", three}, {"algorithm", std::string(algorithm)}}, 6, 3);
      const std::string expected = std::string(algorithm) == kernel ? "" : fmt::format("algorithm='{}' is asked for", algorithm);
      EXPECT_EQ(refusal(fmt::format("attention_{}", kernel), call), expected);
    }
}

TEST(AttentionBytes, AreTheFormulas) {
  const auto sent = [](const char* kernel, const KernelCase& c) { return find_kernel(kernel)->sent_bytes(call_of(c)).constant(); };
  // q and the result of 8 heads, k and v of 4, 6 rows of 16 and 12 numbers of 2 bytes, 4 ranks.
  const std::int64_t q = 8 * 6 * 16 * 2, k = 4 * 6 * 16 * 2, v = 4 * 6 * 12 * 2, out = 8 * 6 * 12 * 2;
  KernelCase c = {
      .op = "Attention",
      .attributes = {{"num_ranks", std::int64_t{4}}},
      .operands = {Tensor(DType::f16, {1, 8, 6, 16}), Tensor(DType::f16, {1, 4, 6, 16}), Tensor(DType::f16, {1, 4, 6, 12}), std::nullopt}};
  EXPECT_EQ(sent("attention_all_gather", c), 3 * (k + v));
  EXPECT_EQ(sent("attention_ring", c), 3 * (k + v));
  EXPECT_EQ(sent("attention_all_to_all", c), 3 * (q + k + v + out) / 4);
  EXPECT_EQ(sent("attention_balanced", c), 3 * (k + v) + 3 * q / 8);
  EXPECT_EQ(sent("attention_parts", c), 3 * (8 * 6 * (12 + 2)) * 4);
  const std::pair<Shape, std::int64_t> masks[] = {
      {{24}, 0}, {{1, 8, 1, 24}, 0}, {{6, 24}, 3 * 6 * 24}, {{1, 8, 6, 24}, 3 * 8 * 6 * 24 / 4}};
  for (const auto& [shape, bytes] : masks) {
    c.operands[kMask] = Tensor(DType::boolean, shape);
    EXPECT_EQ(sent("attention_all_to_all", c), 3 * (q + k + v + out) / 4 + bytes) << to_string(shape);
  }
}

void expect_error(ErrorCode code, const std::string& words, const std::function<void(KernelCase&)>& change) {
  Whole w{.rows = 6, .columns = 6};
  w.fill(1);
  try {
    run_ranks(2, [&](Group& group) {
      KernelCase c = case_of(w, {"attention_all_gather"}, group);
      change(c);
      run_kernel(c);
    });
    ADD_FAILURE() << "no error with " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.message();
    EXPECT_NE(std::string(error.message()).find(words), std::string::npos) << error.message();
  }
}

TEST(AttentionRefusals, AtPrepare) {
  expect_error(ErrorCode::invalid_argument, "outside their groups", [](KernelCase& c) { c.group = nullptr; });
  expect_error(ErrorCode::mismatch, "over 3 ranks, its group has 2",
               [](KernelCase& c) { c.attributes.emplace_back("num_ranks", std::int64_t{3}); });
  expect_error(ErrorCode::invalid_argument, "7 rows do not fit 2 ranks with 3 each",
               [](KernelCase& c) { c.attributes.emplace_back("extent", Dim(7)); });
  expect_error(ErrorCode::invalid_argument, "-1 keys do not fit", [](KernelCase& c) { c.attributes.emplace_back("kv_extent", Dim(-1)); });
  expect_error(ErrorCode::invalid_argument, "even number of rows on each rank, not 3",
               [](KernelCase& c) { c.attributes.emplace_back("layout", std::string("zigzag")); });
  expect_error(ErrorCode::invalid_argument, "a column for each of the 6 keys", [](KernelCase& c) {
    c.operands[kMask] = Tensor(DType::boolean, {3, 3});
  });
}

}  // namespace
}  // namespace tandem::test
