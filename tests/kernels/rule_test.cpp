// The kernel that is taken without times.
#include "ops/rule_cpu.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ops/ops.h"

namespace tandem {
namespace {

OpCall attention_over(int ranks, const Dim& rows, std::int64_t heads, std::int64_t kv_heads, std::optional<Type> mask = {}) {
  OpCall call;
  call.op = &ops::Attention;
  call.attributes = Attributes(&call.op->fields);
  call.attributes.set("num_ranks", std::int64_t{ranks});
  const Type kv = {DType::f32, {1, kv_heads, rows, 16}};
  call.operands = {Type{DType::f32, {1, heads, rows, 16}}, kv, kv, mask};
  call.results = call.op->infer(call);
  return call;
}

std::string_view chosen(const OpCall& call) {
  std::vector<const KernelDef*> able;
  for (const KernelDef* kernel : kernels_of("Attention", "cpu"))
    if (!kernel->op.empty() && !kernel->refuse(call)) able.push_back(kernel);
  return choose_by_rule(able, call, {})->name;
}

TEST(KernelRule, AttentionSendsTheFewestBytes) {
  const Dim s = Dim::symbol("s");
  for (const Dim& rows : {Dim(9), s, ceil_div(s, Dim(4))}) {
    EXPECT_EQ(chosen(attention_over(2, rows, 8, 8)), "attention_all_gather");  // a tie: 2·kv sent one way, 4·kv/2 the other
    EXPECT_EQ(chosen(attention_over(4, rows, 8, 8)), "attention_all_to_all");
    EXPECT_EQ(chosen(attention_over(4, rows, 16, 4)), "attention_all_gather");
    EXPECT_EQ(chosen(attention_over(3, rows, 8, 8)), "attention_all_gather");  // heads do not divide
  }
  EXPECT_EQ(chosen(attention_over(4, 64, 8, 8, Type{DType::f32, {64, 256}})), "attention_all_gather");  // the mask would have to come along
  EXPECT_EQ(chosen(attention_over(4, 64, 8, 8, Type{DType::f32, {1, 256}})), "attention_all_to_all");
  OpCall parts = attention_over(4, 1, 8, 2);
  parts.attributes.set("split", std::string("kv"));
  EXPECT_EQ(chosen(parts), "attention_parts");
}

TEST(KernelRule, ExactForbidsWhatIsWeaker) {
  const KernelDef sound{.name = "sound", .op = "Attention"}, weak{.name = "weak", .op = "Attention", .weaker = "its maximum drops NaN"};
  const OpCall call = attention_over(2, 9, 8, 8);
  EXPECT_FALSE(refusal(sound, call, true));
  EXPECT_FALSE(refusal(weak, call, false));
  EXPECT_EQ(refusal(weak, call, true).value_or(""), "--exact forbids it: its maximum drops NaN");
}

TEST(KernelRule, TiesKeepTheOrder) {
  const KernelDef first{.name = "first", .op = "Attention"}, second{.name = "second", .op = "Attention"};
  const std::vector<const KernelDef*> able = {&first, &second};
  EXPECT_EQ(choose_by_rule(able, attention_over(2, 9, 8, 8), {})->name, "first");
}

// An engine has placed the result then, and its file may come to a machine without the library.
TEST(KernelRule, WhatALibraryDoesInPlaceIsDoneInPlaceWithoutItToo) {
  for (const auto& kernels : {cpu_kernels(), cuda_kernels()})
    for (const KernelDef* kernel : kernels) {
      if (kernel->library.empty() || kernel->in_place_operand < 0) continue;
      const auto stands_in = [&](const KernelDef* other) {
        return other->device == kernel->device && other->library.empty() && other->in_place_operand == kernel->in_place_operand &&
               (other->op.empty() || other->op == kernel->op);
      };
      EXPECT_TRUE(std::ranges::any_of(kernels, stands_in)) << kernel->name;
    }
}

}  // namespace
}  // namespace tandem
