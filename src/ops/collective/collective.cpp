// One op per row of tandem/collective.def.
#include <set>

#include "core/check.h"
#include "ops/collective/import.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem::ops {
namespace {

constexpr DType kCarried[] = {DType::f32, DType::f16, DType::bf16, DType::f8e4m3, DType::f8e5m2,
                              DType::i8,  DType::u8,  DType::i32,  DType::i64};

void check_dtype(const CollectiveInfo& collective, DType dtype) {
  if (dtype == DType::boolean && !collective.reduces) return;
  for (const DType carried : kCarried)
    if (carried == dtype) return;
  fail(ErrorCode::invalid_model, "{} cannot carry {}", collective.name, to_string(dtype));
}

void check_groups(const RankLists& groups, std::int64_t num_ranks) {
  std::set<std::int64_t> seen;
  for (const auto& group : groups) {
    if (static_cast<std::int64_t>(group.size()) != num_ranks)
      fail(ErrorCode::invalid_model, "a group of {} ranks, expected {}", group.size(), num_ranks);
    for (const std::int64_t rank : group)
      if (rank < 0 || !seen.insert(rank).second) fail(ErrorCode::invalid_model, "rank {} is negative or listed twice", rank);
  }
}

// `extent` in N equal blocks, or Error(invalid_model); a symbol is checked when shapes are bound.
Dim block(const Dim& extent, int dim, std::int64_t num_ranks) {
  if (extent.is_constant() && extent.constant() % num_ranks != 0)
    fail(ErrorCode::invalid_model, "dimension {} of extent {} does not divide over {} ranks", dim, extent.constant(), num_ranks);
  return floor_div(extent, num_ranks);
}

Dim trimmed(const OpCall& call, const Dim& extent) {
  const Dim& trim = call.attributes.dim("trim");
  if (trim == Dim(0)) return extent;
  if ((extent - trim).bounds({}).max < 0) fail(ErrorCode::invalid_model, "cannot trim {} rows to {}", extent.to_string(), trim.to_string());
  return trim;
}

const CollectiveInfo& info_of(const OpCall& call) { return info(parse_collective(call.op->name)); }

std::vector<Type> infer(const OpCall& call) {
  const CollectiveInfo& collective = info_of(call);
  Type y = call.operand(0);
  check_dtype(collective, y.dtype);
  const Attributes& a = call.attributes;
  const std::int64_t num_ranks = a.integer("num_ranks");
  if (num_ranks < 1) fail(ErrorCode::invalid_model, "num_ranks is {}", num_ranks);
  check_groups(a.get<RankLists>("groups"), num_ranks);
  if (!a.text("axis").empty() && !a.get<RankLists>("groups").empty())
    fail(ErrorCode::invalid_model, "an axis and groups exclude each other");
  if (collective.rooted && (a.integer("root") < 0 || a.integer("root") >= num_ranks))
    fail(ErrorCode::invalid_model, "root {} is outside the group of {} ranks", a.integer("root"), num_ranks);

  const auto at = [&](int dim) -> Dim& { return y.dims[static_cast<std::size_t>(dim)]; };
  if (collective.kind == Collective::all_to_all) {
    const int split = normalize_axis(a.integer("split_dim"), y.rank()), concat = normalize_axis(a.integer("concat_dim"), y.rank());
    at(split) = block(at(split), split, num_ranks);
    at(concat) = trimmed(call, at(concat) * Dim(num_ranks));
  } else if (collective.extent != CollectiveExtent::same) {
    const int dim = normalize_axis(a.integer("dim"), y.rank());
    at(dim) = collective.extent == CollectiveExtent::over ? block(at(dim), dim, num_ranks) : trimmed(call, at(dim) * Dim(num_ranks));
  }
  return {y};
}

std::vector<std::string> reduction_words() {
  return {
#define TANDEM_REDUCTION(name) #name,
#include "tandem/collective.def"
  };
}

std::vector<Field> fields_of(const CollectiveInfo& collective) {
  std::vector<Field> fields = {
      {"axis", FieldKind::text, std::string(), {}, "mesh axis whose groups take part; empty: `groups`, or all ranks"},
      {"groups", FieldKind::rank_lists, RankLists{}, {}, "explicit disjoint groups of ranks"},
      {"num_ranks", FieldKind::integer, std::int64_t{1}, {}, "ranks in a group"},
  };
  if (collective.reduces)
    fields.push_back({"reduce", FieldKind::text, std::string("sum"), reduction_words(), "how the inputs are reduced"});
  if (collective.rooted) fields.push_back({"root", FieldKind::integer, std::int64_t{-1}, {}, "position in the group"});
  const bool all_to_all = collective.kind == Collective::all_to_all;
  if (all_to_all) {
    fields.push_back({"split_dim", FieldKind::integer, std::int64_t{0}, {}, "dimension that is cut into one block per rank"});
    fields.push_back({"concat_dim", FieldKind::integer, std::int64_t{0}, {}, "dimension along which received blocks are joined"});
  } else if (collective.extent != CollectiveExtent::same) {
    fields.push_back({"dim", FieldKind::integer, std::int64_t{0}, {}, "dimension that is joined or cut"});
  }
  if (all_to_all || collective.extent == CollectiveExtent::times)
    fields.push_back({"trim", FieldKind::dim, Dim(0), {}, "rows to keep of the joined ones, which end in padding; 0: all"});
  if (collective.kind == Collective::shift)
    fields.push_back({"shift", FieldKind::integer, std::int64_t{1}, {}, "k: rank r gets the input of rank (r − k) mod N"});
  return fields;
}

OpDef define(Collective kind, std::string_view doc, std::vector<OnnxRule> onnx = {}) {
  const CollectiveInfo& collective = info(kind);
  return {
      .name = collective.op,
      .doc = doc,
      .fields = fields_of(collective),
      .operands = {{"x"}},
      .min_operands = 1,
      .max_operands = 1,
      .infer = infer,
      .onnx = std::move(onnx),
      .collective = true,
  };
}

}  // namespace

const OpDef AllGather = define(Collective::all_gather, "The inputs of all ranks, joined along `dim` in the order of the ranks.");
const OpDef AllReduce = define(Collective::all_reduce, "The reduction of the inputs over the ranks, on every rank.",
                               {{"DistCollective", 1, collective::import_dist_collective}});
const OpDef AllToAll =
    define(Collective::all_to_all, "Block r along `split_dim` of every rank's input, joined along `concat_dim` in the order of the ranks.");
const OpDef Broadcast = define(Collective::broadcast, "The input of the root, on every rank.");
const OpDef GatherTo = define(Collective::gather, "On the root the inputs of all ranks joined along `dim`, zeros elsewhere.");
const OpDef ReduceScatter =
    define(Collective::reduce_scatter, "Block r along `dim` of the reduction of the inputs over the ranks, on rank r.");
const OpDef ReduceTo = define(Collective::reduce, "On the root the reduction of the inputs over the ranks, zeros elsewhere.");
const OpDef Scatter = define(Collective::scatter, "Block r along `dim` of the root's input, on rank r.");
const OpDef Shift = define(Collective::shift, "The input of the rank that lies `shift` before this one, cyclically.");

}  // namespace tandem::ops
