#include "core/collective.h"

#include "ops/op_test.h"

namespace tandem::testing {
namespace {

NamedAttributes over(std::int64_t ranks, NamedAttributes more = {}) {
  more.emplace_back("num_ranks", ranks);
  return more;
}

Type f32(const char* dims) { return type_of(DType::f32, dims); }

TEST(Collective, EveryRowHasAnOp) {
  for (const CollectiveInfo& row : collectives()) {
    const OpDef* op = all_ops().find(row.op);
    ASSERT_NE(op, nullptr) << row.op;
    EXPECT_TRUE(op->collective);
    EXPECT_EQ(op->evaluate, nullptr);
    EXPECT_FALSE(op->doc.empty());
    EXPECT_EQ(Attributes(&op->fields).has("reduce"), row.reduces);
    EXPECT_EQ(Attributes(&op->fields).has("root"), row.rooted);
  }
}

TEST(Collective, Extents) {
  const auto result = [](const OpDef& op, const char* dims, NamedAttributes attributes) { return infer(op, {f32(dims)}, attributes)[0]; };
  EXPECT_EQ(result(ops::AllReduce, "B,6", over(4)), f32("B,6"));
  EXPECT_EQ(result(ops::AllGather, "B,6", over(4)), f32("4*B,6"));
  EXPECT_EQ(result(ops::AllGather, "B,6", over(4, {{"dim", std::int64_t{-1}}})), f32("B,24"));
  EXPECT_EQ(result(ops::AllGather, "ceildiv(S,4),6", over(4, {{"trim", Dim::symbol("S")}})), f32("S,6"));
  EXPECT_EQ(result(ops::Broadcast, "6", over(2, {{"root", std::int64_t{1}}})), f32("6"));
  EXPECT_EQ(result(ops::ReduceTo, "6", over(2, {{"root", std::int64_t{1}}})), f32("6"));
  EXPECT_EQ(result(ops::GatherTo, "6", over(2, {{"root", std::int64_t{0}}})), f32("12"));
  EXPECT_EQ(result(ops::ReduceScatter, "4*S,6", over(4)), f32("S,6"));
  EXPECT_EQ(result(ops::Scatter, "B,6", over(3, {{"root", std::int64_t{2}}, {"dim", std::int64_t{1}}})), f32("B,2"));
  EXPECT_EQ(result(ops::AllToAll, "8,S", over(4)), f32("8,S"));
  EXPECT_EQ(result(ops::AllToAll, "8,S", over(4, {{"split_dim", std::int64_t{0}}, {"concat_dim", std::int64_t{1}}})), f32("2,4*S"));
  EXPECT_EQ(result(ops::Shift, "B,6", over(4, {{"shift", std::int64_t{2}}})), f32("B,6"));
  // Symbolic extents that may not divide are checked when shapes are bound.
  EXPECT_EQ(result(ops::ReduceScatter, "S", over(2)).dims[0], floor_div(Dim::symbol("S"), 2));
}

TEST(Collective, AllReduceWithNorm) {
  const Type x = f32("B,S,8"), scale = f32("8");
  for (const OpDef* op : {&ops::AllReduceAddRmsNorm, &ops::AllReduceAddLayerNorm}) {
    EXPECT_TRUE(op->collective);
    EXPECT_EQ(op->evaluate, nullptr);
    EXPECT_EQ(infer(*op, {x, x, scale}, over(2)), (std::vector<Type>{x, x}));
    expect_error(ErrorCode::invalid_model, "num_ranks is 0", [&] { infer(*op, {x, x, scale}, over(0)); });
    expect_error(ErrorCode::invalid_model, "the residual is", [&] { infer(*op, {x, scale, scale}, over(2)); });
    expect_error(ErrorCode::invalid_model, "do not broadcast", [&] { infer(*op, {x, x, f32("7")}, over(2)); });
    expect_error(ErrorCode::invalid_model, "a float type", [&] {
      infer(*op, {type_of(DType::i32, "8"), type_of(DType::i32, "8"), type_of(DType::i32, "8")}, over(2));
    });
  }
}

TEST(Collective, Errors) {
  const auto refused = [](const char* part, const OpDef& op, Type x, NamedAttributes attributes) {
    expect_error(ErrorCode::invalid_model, part, [&] { infer(op, {x}, attributes); });
  };
  refused("dimension 1 of extent 6 does not divide over 4 ranks", ops::ReduceScatter, f32("B,6"), over(4, {{"dim", std::int64_t{1}}}));
  refused("does not divide", ops::AllToAll, f32("6"), over(4));
  refused("num_ranks is 0", ops::AllReduce, f32("6"), over(0));
  refused("root -1 is outside", ops::Broadcast, f32("6"), over(4));
  refused("root 4 is outside", ops::Broadcast, f32("6"), over(4, {{"root", std::int64_t{4}}}));
  refused("a group of 3 ranks, expected 2", ops::AllReduce, f32("6"), over(2, {{"groups", RankLists{{0, 1, 2}}}}));
  refused("listed twice", ops::AllReduce, f32("6"), over(2, {{"groups", RankLists{{0, 1}, {1, 2}}}}));
  refused("exclude each other", ops::AllReduce, f32("6"), over(2, {{"groups", RankLists{{0, 1}}}, {"axis", std::string("tp")}}));
  refused("outside rank 0", ops::AllGather, f32(""), over(2));
  refused("all_reduce cannot carry bool", ops::AllReduce, type_of(DType::boolean, "6"), over(2));
  refused("all_gather cannot carry f64", ops::AllGather, type_of(DType::f64, "6"), over(2));
  refused("cannot trim", ops::AllGather, f32("2"), over(2, {{"trim", Dim(5)}}));
  EXPECT_NO_THROW(infer(ops::AllGather, {type_of(DType::boolean, "6")}, over(2)));
  EXPECT_EQ(infer(ops::AllReduce, {f32("")}, over(2))[0], f32(""));
}

NamedAttributes grown(std::int64_t ranks, const Dim& extent) { return over(ranks, {{"dim", std::int64_t{1}}, {"extent", extent}}); }

TEST(Append, GivesABlockOfBoth) {
  EXPECT_EQ(infer(ops::Append, {f32("B,2,4"), f32("B,3,4")}, grown(4, 7))[0], f32("B,3,4"));
  EXPECT_EQ(infer(ops::Append, {f32("B,ceildiv(P,2),4"), f32("B,S,4")}, grown(2, Dim::symbol("P")))[0], f32("B,ceildiv(P+S,2),4"));
  EXPECT_TRUE(ops::Append.collective);
}

TEST(Append, Errors) {
  const auto refused = [](const char* part, Type past, Type fresh, NamedAttributes attributes) {
    expect_error(ErrorCode::invalid_model, part, [&] { infer(ops::Append, {past, fresh}, attributes); });
  };
  refused("3 rows of the past are no block of 7 over 4 ranks", f32("B,3"), f32("B,1"), grown(4, 7));
  refused("num_ranks is 0", f32("B,3"), f32("B,1"), grown(0, 7));
  refused("expected rank 2", f32("B,2"), f32("B,1,1"), grown(4, 7));
  refused("dimension 0", f32("5,2"), f32("6,1"), grown(4, 7));
  refused("operand 1 is f16, expected f32", f32("B,2"), type_of(DType::f16, "B,1"), grown(4, 7));
}

NamedAttributes slice(std::int64_t dim, const Dim& begin, const Dim& length) {
  return {{"dim", dim}, {"begin", begin}, {"length", length}};
}

TEST(ShardSlice, ZerosPastTheEnd) {
  const Tensor x = numbers({2, 3}, {1, 2, 3, 4, 5, 6});
  expect_near(evaluate(ops::ShardSlice, {x}, slice(1, 0, 2)), {1, 2, 4, 5});
  expect_near(evaluate(ops::ShardSlice, {x}, slice(-1, 2, 2)), {3, 0, 6, 0});
  expect_near(evaluate(ops::ShardSlice, {x}, slice(1, 4, 2)), {0, 0, 0, 0});
  expect_near(evaluate(ops::ShardSlice, {x}, slice(0, 1, 2)), {4, 5, 6, 0, 0, 0});
}

TEST(ShardSlice, CoordinatesAreBound) {
  const Dim block = ceil_div(Dim::symbol("S"), 2);
  const OpCall call = call_of(ops::ShardSlice, {f32("S")}, slice(0, Dim::symbol("@cp") * block, block));
  EXPECT_EQ(call.results[0].dims[0], block);
  const std::vector<Tensor> x = {numbers({3}, {7, 8, 9})};
  expect_near(ops::ShardSlice.evaluate(call.bound({{"S", 3}, {"@cp", 0}}), x)[0], {7, 8});
  expect_near(ops::ShardSlice.evaluate(call.bound({{"S", 3}, {"@cp", 1}}), x)[0], {9, 0});
}

Imported& distributed(Imported& program, const char* operation, const char* reduce = "none") {
  program.input(f32("n,3")).with("collective_operation", std::string(operation)).with("reduce_op", std::string(reduce));
  program.node.world_size = 4;
  return program;
}

TEST(DistCollective, AllOperations) {
  for (const CollectiveInfo& row : collectives()) {
    if (row.kind == Collective::shift) continue;
    Imported program("DistCollective", 17);
    distributed(program, std::string(row.name).c_str(), row.reduces ? "max" : "none").with("root", std::int64_t{row.rooted ? 3 : -1});
    program.with("nb_rank", std::int64_t{4}).with("group_size", std::int64_t{0}).with("groups", std::vector<std::int64_t>{});
    EXPECT_EQ(program.run_rule(), std::vector<std::string>{std::string(row.op)});
    const Attributes& attributes = program.find(row.op)->attributes;
    EXPECT_EQ(attributes.integer("num_ranks"), 4);
    EXPECT_EQ(row.reduces ? attributes.text("reduce") : "max", "max");
    EXPECT_EQ(row.rooted ? attributes.integer("root") : 3, 3);
    EXPECT_TRUE(program.module.notices.empty());
  }
}

TEST(DistCollective, GroupsAndGlobalRoots) {
  Imported program("DistCollective", 17);
  distributed(program, "broadcast")
      .with("root", std::int64_t{3})
      .with("groups", std::vector<std::int64_t>{2, 3})
      .with("group_size", std::int64_t{2});
  program.run_rule();
  const Attributes& attributes = program.find("Broadcast")->attributes;
  EXPECT_EQ(attributes.integer("num_ranks"), 2);
  EXPECT_EQ(attributes.integer("root"), 1);
  EXPECT_EQ(attributes.get<RankLists>("groups"), (RankLists{{2, 3}}));

  Imported outside("DistCollective", 17);
  distributed(outside, "broadcast").with("root", std::int64_t{0}).with("groups", std::vector<std::int64_t>{2, 3});
  expect_error(ErrorCode::invalid_model, "root 0 is not in the group [2,3]", [&] { outside.run_rule(); });
  Imported sizes("DistCollective", 17);
  distributed(sizes, "all_gather").with("group_size", std::int64_t{3}).with("groups", std::vector<std::int64_t>{2, 3});
  expect_error(ErrorCode::invalid_model, "group_size is 3", [&] { sizes.run_rule(); });
}

TEST(DistCollective, WhatOtherToolsWrite) {
  Imported program("DistCollective", 17);  // no nb_rank; a reduction where none takes place
  distributed(program, "all_gather", "sum").run_rule();
  EXPECT_EQ(program.find("AllGather")->attributes.integer("num_ranks"), 4);
  ASSERT_EQ(program.module.notices.size(), 1u);
  EXPECT_NE(program.module.notices[0].find("'sum' is ignored"), std::string::npos);

  Imported unknown("DistCollective", 17);
  expect_error(ErrorCode::invalid_model, "'all_sum' is not known", [&] { distributed(unknown, "all_sum").run_rule(); });
  Imported missing("DistCollective", 17);
  expect_error(ErrorCode::invalid_model, "not one of", [&] { distributed(missing, "all_reduce", "none").run_rule(); });
  Imported rootless("DistCollective", 17);
  expect_error(ErrorCode::invalid_model, "root -1", [&] { distributed(rootless, "reduce", "sum").run_rule(); });
}

}  // namespace
}  // namespace tandem::testing
