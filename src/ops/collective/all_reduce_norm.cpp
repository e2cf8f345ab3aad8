// All-reduce with the norm that follows it.
#include "ops/collective/all_reduce_norm.h"

#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace ops {
namespace {

std::vector<Type> infer(const OpCall& call) {
  AllReduceNorm parts = parts_of(call);
  parts.norm.operands.at(0) = AllReduce.infer(parts.reduce).at(0);
  return parts.norm.op->infer(parts.norm);
}

OpDef define(std::string_view name, std::string_view doc, bool centers) {
  OpDef op = {
      .name = name,
      .doc = doc,
      .fields = {{"axis", FieldKind::text, std::string(), {}, "mesh axis whose groups take part; empty: `groups`, or all ranks"},
                 {"groups", FieldKind::rank_lists, RankLists{}, {}, "explicit disjoint groups of ranks"},
                 {"num_ranks", FieldKind::integer, std::int64_t{1}, {}, "ranks in a group"},
                 {"dim", FieldKind::integer, std::int64_t{-1}, {}, "the first of the normalized dimensions, which are the last ones"},
                 {"epsilon", FieldKind::real, 1e-5, {}, "added to the variance or mean square"}},
      .operands = {{"x", "this rank's part of the sum"}, {"residual", "like x"}, {"scale", "broadcasts to the normalized dimensions"}},
      .results = {{"y"}, {"sum"}},
      .min_operands = 3,
      .max_operands = centers ? 5 : 4,
      .infer = infer,
      .collective = true,
  };
  if (centers) op.operands.push_back({"bias", "broadcasts to the normalized dimensions"});
  op.operands.push_back({"offset", "broadcasts to the normalized dimensions"});
  return op;
}

}  // namespace

const OpDef AllReduceAddLayerNorm = define("AllReduceAddLayerNorm",
                                           "AddLayerNorm of the sum of x over the ranks, rounded to its type, on every rank; results: the "
                                           "norm, and the sum with residual and offset.",
                                           true);
const OpDef AllReduceAddRmsNorm = define("AllReduceAddRmsNorm",
                                         "AddRmsNorm of the sum of x over the ranks, rounded to its type, on every rank; results: the "
                                         "norm, and the sum with residual and offset.",
                                         false);

}  // namespace ops

AllReduceNorm parts_of(const OpCall& call) {
  const OpDef& norm = call.op->name.ends_with("LayerNorm") ? ops::AddLayerNorm : ops::AddRmsNorm;
  AllReduceNorm parts{{&ops::AllReduce, Attributes(&ops::AllReduce.fields), {call.operands.at(0)}, {call.operand(0)}},
                      {&norm, Attributes(&norm.fields), call.operands, call.results}};
  const Attributes& a = call.attributes;
  parts.reduce.attributes.set("axis", a.text("axis"));
  parts.reduce.attributes.set("groups", a.get<RankLists>("groups"));
  parts.reduce.attributes.set("num_ranks", a.integer("num_ranks"));
  parts.norm.attributes.set("axis", a.integer("dim"));
  parts.norm.attributes.set("epsilon", a.real("epsilon"));
  return parts;
}

}  // namespace tandem
