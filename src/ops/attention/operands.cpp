#include "ops/attention/operands.h"

namespace tandem::attention {

std::vector<Operand> operands() {
  return {{"q"},
          {"k"},
          {"v"},
          {"mask", "bool (true: attend) or added to the scores; broadcasts to [B,Hq,Sq,Skv]"},
          {"query_lengths", "i32 or i64 [B]: rows from there on are zeros"},
          {"key_lengths", "i32 or i64 [B]: columns from there on are not attended to"},
          {"past", "i32 or i64 scalar, for causal=offset: keys before the first query"}};
}

std::vector<Field> fields() {
  return {
      {"scale", FieldKind::real, 1.0, {}, "factor of q·kᵀ; importers write 1/√D where a file leaves it out"},
      {"causal",
       FieldKind::text,
       std::string("none"),
       {"none", "upper_left", "lower_right", "offset"},
       "j ≤ i, j ≤ i + Skv − Sq, j ≤ i + past"},
      {"softcap", FieldKind::real, 0.0, {}, "c: scores become c·tanh(score/c) before the mask; 0: they stay"},
      {"empty_rows", FieldKind::text, std::string("zero"), {"zero", "nan"}, "the result of a row that may attend to nothing"},
      {"axis", FieldKind::text, std::string(), {}, "mesh axis over which the sequence is split; empty: none, or `groups`, or all ranks"},
      {"groups", FieldKind::rank_lists, RankLists{}, {}, "explicit groups of ranks instead of an axis"},
      {"num_ranks", FieldKind::integer, std::int64_t{1}, {}, "ranks in a group"},
      {"split", FieldKind::text, std::string("qkv"), {"qkv", "kv"}, "what the ranks hold parts of"},
      {"layout", FieldKind::text, std::string("contiguous"), {"contiguous", "zigzag"}, "which positions a rank holds"},
      {"algorithm",
       FieldKind::text,
       std::string("auto"),
       {"auto", "all_gather", "all_to_all", "ring", "balanced"},
       "how the ranks exchange"},
      {"extent", FieldKind::dim, Dim(0), {}, "length of the whole query sequence if split; 0: as many as there are"},
      {"kv_extent", FieldKind::dim, Dim(0), {}, "length of the whole key sequence if split; 0: as many as there are"}};
}

}  // namespace tandem::attention
