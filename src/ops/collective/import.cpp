#include "ops/collective/import.h"

#include <algorithm>

#include "core/check.h"
#include "core/collective.h"

namespace tandem::collective {
namespace {

const CollectiveInfo& operation_of(const ForeignNode& node) {
  const std::string word = node.text("collective_operation", "");
  for (const CollectiveInfo& c : collectives())
    if (c.name == word && c.kind != Collective::shift) return c;
  fail(ErrorCode::invalid_model, "collective_operation '{}' is not known", word);
}

// The ranks of the group in order; empty for the whole world.
std::vector<std::int64_t> group_of(const ForeignNode& node) {
  const std::vector<std::int64_t> group = node.integers("groups", {});
  const std::int64_t size = node.integer("group_size", 0);
  if (!group.empty() && size != 0 && size != static_cast<std::int64_t>(group.size()))
    fail(ErrorCode::invalid_model, "group_size is {} but groups lists {} ranks", size, group.size());
  return group;
}

std::int64_t ranks_of(const ForeignNode& node, const std::vector<std::int64_t>& group) {
  if (!group.empty()) return static_cast<std::int64_t>(group.size());
  const std::int64_t ranks = node.integer("nb_rank", node.integer("nbRanks", node.world_size)), size = node.integer("group_size", 0);
  if (size != 0 && size != ranks) fail(ErrorCode::unsupported, "group_size {} of {} ranks without a list of groups", size, ranks);
  return ranks;
}

// The file counts all ranks, we count within the group.
std::int64_t root_in_group(std::int64_t root, const std::vector<std::int64_t>& group) {
  if (group.empty()) return root;
  const auto found = std::ranges::find(group, root);
  if (found == group.end()) fail(ErrorCode::invalid_model, "root {} is not in the group [{}]", root, fmt::join(group, ","));
  return found - group.begin();
}

}  // namespace

std::vector<Value*> import_dist_collective(const ForeignNode& node, GraphBuilder& builder) {
  const CollectiveInfo& operation = operation_of(node);
  const std::vector<std::int64_t> group = group_of(node);
  NamedAttributes attributes = {{"num_ranks", ranks_of(node, group)}};
  if (!group.empty()) attributes.emplace_back("groups", RankLists{group});
  if (operation.rooted) attributes.emplace_back("root", root_in_group(node.integer("root", -1), group));
  const std::string reduce = node.text("reduce_op", "none");
  if (operation.reduces) {
    attributes.emplace_back("reduce", reduce);
  } else if (reduce != "none") {
    parse_reduction(reduce);
    builder.module().notices.push_back(
        fmt::format("{} \"{}\" does not reduce; its reduce_op '{}' is ignored", operation.name, node.name, reduce));
  }
  return {builder.add(operation.op, {node.required(0)}, attributes)};
}

}  // namespace tandem::collective
