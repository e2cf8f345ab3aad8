// What each collective of a program sends.
#include "build/build.h"
#include "core/check.h"
#include "ops/attention/flat.h"
#include "ops/attention/operands.h"

namespace tandem {
namespace {

template <typename T>
T attribute(const Node& node, std::string_view name, T otherwise) {
  const auto& fields = node.attributes.fields();
  for (std::size_t i = 0; i < fields.size(); ++i)
    if (fields[i].name == name)
      if (const T* value = std::get_if<T>(&node.attributes.values()[i])) return *value;
  return otherwise;
}

const CollectiveInfo* info_of(const Node& node) {
  for (const CollectiveInfo& info : collectives())
    if (node.is(info.op)) return &info;
  return nullptr;
}

// Bytes one rank sends, for the algorithms that send least: a ring, or straight to the receiver.
Dim sent_bytes(Collective kind, const Dim& bytes, int ranks) {
  switch (kind) {
    case Collective::all_reduce: return floor_div(bytes * Dim(2 * (ranks - 1)), Dim(ranks));
    case Collective::all_gather: return bytes * Dim(ranks - 1);
    case Collective::reduce_scatter:
    case Collective::all_to_all:
    case Collective::scatter: return floor_div(bytes * Dim(ranks - 1), Dim(ranks));
    default: return bytes;
  }
}

Dim bytes_of(const Type& type) { return ceil_div(product(type.dims) * Dim(bits(type.dtype)), Dim(8)); }

}  // namespace

bool communicates(const Node& node) { return node.op().collective || attribute<std::int64_t>(node, "num_ranks", 1) > 1; }

int ranks_of(const CollectiveUse& use, const Mesh& mesh) {
  return !use.axis.empty() ? mesh.size(use.axis) : !use.groups.empty() ? static_cast<int>(use.groups[0].size()) : mesh.size();
}

CollectiveUse collective_use(const Node& node, const Mesh& mesh) {
  CollectiveUse use;
  use.axis = attribute<std::string>(node, "axis", "");
  use.groups = attribute<RankLists>(node, "groups", {});
  const int ranks = ranks_of(use, mesh);
  const Value* input = node.operand(0);
  check(input != nullptr, "a collective has an operand");
  use.dtype = input->type.dtype;
  if (const CollectiveInfo* info = info_of(node)) {
    use.operation = info->name;
    if (info->reduces) use.reduce = attribute<std::string>(node, "reduce", "sum");
    if (info->rooted) use.root = static_cast<int>(attribute<std::int64_t>(node, "root", 0));
    use.count = product(input->type.dims);
    use.bytes = sent_bytes(info->kind, bytes_of(input->type), ranks);
    return use;
  }
  if (node.is("AllReduceAddLayerNorm") || node.is("AllReduceAddRmsNorm")) {
    use.operation = info(Collective::all_reduce).name;
    use.reduce = "sum";
    use.count = product(input->type.dims);
    use.bytes = sent_bytes(Collective::all_reduce, bytes_of(input->type), ranks);
    return use;
  }
  if (node.is("Append")) {  // its kernel says what moves
    use.operation = "append";
    use.count = product(input->type.dims);
    return use;
  }
  // Attention: every rank gives its keys and values to all others.
  use.operation = "attention";
  const OpCall attention = node.is("FlatAttention") ? attention::heads_first(node.call()) : node.call();
  for (const std::size_t i : {attention::kK, attention::kV}) {
    const Type& part = attention.operand(i);
    use.count = use.count + product(part.dims);
    use.bytes = use.bytes + bytes_of(part) * Dim(ranks - 1);
  }
  return use;
}

}  // namespace tandem
