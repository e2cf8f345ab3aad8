// Conversions between shardings of one value.
#include <algorithm>

#include "core/check.h"
#include "passes/shard.h"

namespace tandem::sharding {
namespace {

class Converter {
 public:
  Converter(Graph& graph, Value* local, const Type& global, Sharding now, const Mesh& mesh, std::string why)
      : graph_(graph), value_(local), global_(global), now_(std::move(now)), mesh_(mesh), why_(std::move(why)) {
    now_.dims.resize(global.dims.size());
  }

  Value* to(const Sharding& target) {
    for (const Partial& p : std::vector<Partial>(now_.partial))
      if (std::ranges::find(target.partial, p) == target.partial.end() && !reduce_scatter(p, target)) all_reduce(p);
    for (std::size_t d = 0; d < global_.dims.size(); ++d) all_to_all(d, target);
    for (std::size_t d = 0; d < global_.dims.size(); ++d)
      if (now_.is_split(static_cast<int>(d)) && now_.dims[d] != target.dim(static_cast<int>(d))) gather(d);
    for (std::size_t d = 0; d < global_.dims.size(); ++d)
      if (target.is_split(static_cast<int>(d)) && now_.dims[d] != target.dim(static_cast<int>(d)))
        slice(d, target.dim(static_cast<int>(d)));
    return value_;
  }

 private:
  void add(std::string_view op, const NamedAttributes& attributes) {
    const Node* maker = value_->producer();
    const std::string base = value_->name(), name = maker && !maker->name().empty() ? maker->name() : base;
    Node* node = graph_.add(graph_.module().op(op), {value_}, attributes, name, {base});
    node->note = why_;
    value_ = node->result();
  }

  void all_reduce(const Partial& p) {
    add("AllReduce", {{"axis", p.axis}, {"num_ranks", std::int64_t{mesh_.size(p.axis)}}, {"reduce", std::string(to_string(p.reduction))}});
    std::erase(now_.partial, p);
  }

  // The dimension that `axis` alone splits in `s`, in equal blocks of whole rows; -1 if there is none.
  int plain_split(const Sharding& s, const std::string& axis) const {
    const int d = s.split_dim(axis);
    return d >= 0 && s.dim(d).size() == 1 && s.dim(d)[0].axes.size() == 1 ? d : -1;
  }

  bool divides(int dim, const std::string& axis) const {
    return global_.dims[static_cast<std::size_t>(dim)].exact_divide(mesh_.size(axis)).has_value();
  }

  // A partial sum of which the rank wants only its block.
  bool reduce_scatter(const Partial& p, const Sharding& target) {
    const int d = plain_split(target, p.axis);
    if (d < 0 || now_.is_split(d) || !divides(d, p.axis)) return false;
    add("ReduceScatter", {{"axis", p.axis},
                          {"num_ranks", std::int64_t{mesh_.size(p.axis)}},
                          {"reduce", std::string(to_string(p.reduction))},
                          {"dim", std::int64_t{d}}});
    now_.dims[static_cast<std::size_t>(d)] = target.dim(d);
    std::erase(now_.partial, p);
    return true;
  }

  // Split along dimension d by an axis that is to split another one: half the way of gathering and slicing.
  void all_to_all(std::size_t d, const Sharding& target) {
    if (now_.dims[d].size() != 1 || now_.dims[d][0].axes.size() != 1) return;
    const std::string axis = now_.dims[d][0].axes[0];
    const int to = plain_split(target, axis);
    if (to < 0 || to == static_cast<int>(d) || now_.is_split(to) || target.is_split(static_cast<int>(d)) || !divides(to, axis)) return;
    add("AllToAll", {{"axis", axis},
                     {"num_ranks", std::int64_t{mesh_.size(axis)}},
                     {"split_dim", std::int64_t{to}},
                     {"concat_dim", static_cast<std::int64_t>(d)},
                     {"trim", trim(static_cast<int>(d), axis)}});
    now_.dims[d].clear();
    now_.dims[static_cast<std::size_t>(to)] = target.dim(to);
  }

  // The blocks of a dimension that does not divide end in padding.
  Dim trim(int dim, const std::string& axis) const { return divides(dim, axis) ? Dim(0) : global_.dims[static_cast<std::size_t>(dim)]; }

  void reshape(const std::vector<Dim>& dims) {
    if (value_->type.dims != dims) add("Reshape", {{"shape", dims}});
  }

  // The local extents with dimension `d` opened into these parts.
  std::vector<Dim> opened(std::size_t d, const std::vector<Dim>& parts) const {
    std::vector<Dim> dims = local_type(global_, now_, mesh_).dims;
    dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(d));
    dims.insert(dims.begin() + static_cast<std::ptrdiff_t>(d), parts.begin(), parts.end());
    return dims;
  }

  // Brings every split factor of dimension d back to its full size, innermost mesh axis first.
  void gather(std::size_t d) {
    DimSharding factors = now_.dims[d];
    std::vector<Dim> parts;
    for (const Factor& f : factors) parts.push_back(ceil_div(f.size, split_count(f, mesh_)));
    reshape(opened(d, parts));
    for (std::size_t j = 0; j < factors.size(); ++j) {
      Factor& f = factors[j];
      if (f.axes.empty()) continue;
      const auto dim = static_cast<std::int64_t>(d + j);
      const Dim block = parts[j];
      int gathered = 1;
      for (auto axis = f.axes.rbegin(); axis != f.axes.rend(); ++axis) {
        gathered *= mesh_.size(*axis);
        const bool padded = axis + 1 == f.axes.rend() && block * Dim(gathered) != f.size;
        add("AllGather",
            {{"axis", *axis}, {"num_ranks", std::int64_t{mesh_.size(*axis)}}, {"dim", dim}, {"trim", padded ? f.size : Dim(0)}});
      }
      parts[j] = f.size;
    }
    now_.dims[d].clear();
    reshape(local_type(global_, now_, mesh_).dims);
  }

  void slice(std::size_t d, const DimSharding& target) {
    std::vector<Dim> parts;
    for (const Factor& f : target) parts.push_back(f.size);
    reshape(opened(d, parts));
    for (std::size_t j = 0; j < target.size(); ++j) {
      if (target[j].axes.empty()) continue;
      const Dim block = ceil_div(target[j].size, split_count(target[j], mesh_));
      add("ShardSlice", {{"dim", static_cast<std::int64_t>(d + j)}, {"begin", split_index(target[j], mesh_) * block}, {"length", block}});
    }
    now_.dims[d] = target;
    reshape(local_type(global_, now_, mesh_).dims);
  }

  Graph& graph_;
  Value* value_;
  const Type& global_;
  Sharding now_;
  const Mesh& mesh_;
  std::string why_;
};

// Rows of 4-bit numbers are whole bytes on every rank.
void refuse_inside_byte(const Weight& weight, const Sharding& to, const Mesh& mesh) {
  if (bits(weight.recipe->dtype) >= 8 || to.dims.empty() || !to.is_split(static_cast<int>(to.dims.size()) - 1)) return;
  const std::int64_t all = weight.recipe->shape.back(), local = local_extent(all, to.dims.back(), mesh).constant();
  if (local % 2 != 0)
    throw Error(ErrorCode::unsupported,
                fmt::format("{} columns of {} on each rank would begin inside a byte", local, tandem::to_string(weight.recipe->dtype)),
                fmt::format("weight '{}'", weight.name));
}

}  // namespace

Value* convert(Graph& graph, Value* local, const Type& global, const Sharding& from, const Sharding& to, const Mesh& mesh,
               const std::string& why) {
  if (from == to) return local;
  if (local->weight() && from.is_same()) {
    refuse_inside_byte(*local->weight(), to, mesh);
    const RecipePtr recipe = shard_recipe(local->weight()->recipe, to, mesh);
    return graph.weight_value(graph.module().add_weight(local->weight()->name, recipe, local->weight()->frozen));
  }
  return Converter(graph, local, global, from, mesh, why).to(to);
}

}  // namespace tandem::sharding
