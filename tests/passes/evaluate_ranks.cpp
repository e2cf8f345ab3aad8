#include "passes/evaluate_ranks.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "ops/collective/all_reduce_norm.h"

namespace tandem::testing {
namespace {

// For each local index of a dimension the index in the whole, −1 for padding.
std::vector<std::int64_t> global_indices(std::int64_t extent, const DimSharding& dim, const Mesh& mesh, int rank,
                                         const SymbolValues& symbols) {
  std::vector<std::int64_t> indices = {0};
  if (dim.empty()) {
    indices.resize(static_cast<std::size_t>(extent));
    for (std::int64_t i = 0; i < extent; ++i) indices[static_cast<std::size_t>(i)] = i;
    return indices;
  }
  for (const Factor& factor : dim) {
    const std::int64_t size = factor.size.evaluate(symbols);
    std::int64_t parts = 1, part = 0;
    for (const std::string& axis : factor.axes) {
      part = part * mesh.size(axis) + mesh.coordinate(rank, axis);
      parts *= mesh.size(axis);
    }
    const std::int64_t block = (size + parts - 1) / parts;
    std::vector<std::int64_t> longer;
    for (const std::int64_t outer : indices)
      for (std::int64_t i = part * block; i < (part + 1) * block; ++i) longer.push_back(outer < 0 || i >= size ? -1 : outer * size + i);
    indices = std::move(longer);
  }
  return indices;
}

// Calls `visit(local element, whole element)` for every element of a rank's block; −1 for padding.
template <typename Visit>
Shape each_element(const Shape& whole, const Sharding& sharding, const Mesh& mesh, int rank, const SymbolValues& symbols, Visit visit) {
  std::vector<std::vector<std::int64_t>> maps;
  Shape block;
  for (std::size_t d = 0; d < whole.size(); ++d) {
    maps.push_back(global_indices(whole[d], sharding.dim(static_cast<int>(d)), mesh, rank, symbols));
    block.push_back(static_cast<std::int64_t>(maps.back().size()));
  }
  for (std::int64_t i = 0; i < element_count(block); ++i) {
    std::int64_t rest = i, at = 0, stride = 1;
    for (std::size_t d = whole.size(); d-- > 0;) {
      const std::int64_t index = maps[d][static_cast<std::size_t>(rest % block[d])];
      rest /= block[d];
      at = index < 0 || at < 0 ? -1 : at + index * stride;
      stride *= whole[d];
    }
    visit(i, at);
  }
  return block;
}

void copy_one(const Tensor& from, std::int64_t i, Tensor& to, std::int64_t j) {
  const std::size_t size = bytes(from.dtype(), 1);
  std::memcpy(to.mutable_data() + static_cast<std::size_t>(j) * size, from.data() + static_cast<std::size_t>(i) * size, size);
}

Tensor slice(const Tensor& x, int dim, std::int64_t begin, std::int64_t length) {
  Shape shape = x.shape();
  const auto d = static_cast<std::size_t>(dim);
  std::int64_t inner = 1;
  for (std::size_t i = d + 1; i < shape.size(); ++i) inner *= shape[i];
  const std::int64_t extent = shape[d];
  shape[d] = length;
  Tensor out(x.dtype(), shape);
  for (std::int64_t i = 0; i < out.count(); ++i) {
    const std::int64_t row = i / inner % length + begin, outer = i / inner / length;
    if (row < extent) copy_one(x, (outer * extent + row) * inner + i % inner, out, i);
  }
  return out;
}

Tensor join(const std::vector<Tensor>& parts, int dim) {
  Shape shape = parts[0].shape();
  const auto d = static_cast<std::size_t>(dim);
  const std::int64_t part = shape[d];
  std::int64_t inner = 1;
  for (std::size_t i = d + 1; i < shape.size(); ++i) inner *= shape[i];
  shape[d] *= static_cast<std::int64_t>(parts.size());
  Tensor out(parts[0].dtype(), shape);
  for (std::int64_t i = 0; i < out.count(); ++i) {
    const std::int64_t row = i / inner % shape[d], outer = i / inner / shape[d];
    copy_one(parts[static_cast<std::size_t>(row / part)], (outer * part + row % part) * inner + i % inner, out, i);
  }
  return out;
}

Tensor reduced(const std::vector<Tensor>& parts, const std::string& how) {
  std::vector<double> values = parts[0].to_doubles();
  for (std::size_t r = 1; r < parts.size(); ++r)
    for (std::int64_t i = 0; i < parts[r].count(); ++i) {
      double& v = values[static_cast<std::size_t>(i)];
      const double x = parts[r].at(i);
      v = how == "sum" ? v + x : how == "max" ? std::max(v, x) : how == "min" ? std::min(v, x) : v * x;
    }
  return Tensor::of(parts[0].dtype(), parts[0].shape(), values);
}

int dim_of(const OpCall& call, const char* name) {
  const auto d = static_cast<int>(call.attributes.integer(name));
  return d < 0 ? d + call.operand(0).rank() : d;
}

// What member `me` of a group gets.
Tensor collective(const OpCall& call, const std::vector<Tensor>& parts, int me) {
  const std::string_view name = call.op->name;
  const auto n = static_cast<std::int64_t>(parts.size());
  const std::int64_t trim = call.attributes.has("trim") ? call.attributes.dim("trim").constant() : 0;
  if (name == "AllReduce") return reduced(parts, call.attributes.text("reduce"));
  if (name == "ReduceScatter") {
    const int dim = dim_of(call, "dim");
    const std::int64_t block = parts[0].shape()[static_cast<std::size_t>(dim)] / n;
    return slice(reduced(parts, call.attributes.text("reduce")), dim, me * block, block);
  }
  std::vector<Tensor> pieces = parts;
  int dim = 0;
  if (name == "AllGather") {
    dim = dim_of(call, "dim");
  } else if (name == "AllToAll") {
    dim = dim_of(call, "concat_dim");
    const int split = dim_of(call, "split_dim");
    const std::int64_t block = parts[0].shape()[static_cast<std::size_t>(split)] / n;
    for (Tensor& piece : pieces) piece = slice(piece, split, me * block, block);
  } else {
    fail(ErrorCode::unsupported, "{} in a lockstep run", name);
  }
  const Tensor whole = join(pieces, dim);
  return trim == 0 ? whole : slice(whole, dim, 0, trim);
}

// The past is in blocks, what is new is the same on all ranks.
Tensor appended(const OpCall& call, const std::vector<std::vector<Tensor>>& operands, int me) {
  const int dim = dim_of(call, "dim");
  std::vector<Tensor> pasts;
  for (const auto& of_rank : operands) pasts.push_back(of_rank[0]);
  const Tensor past = slice(join(pasts, dim), dim, 0, call.attributes.dim("extent").constant()), &fresh = operands[0][1];
  const auto d = static_cast<std::size_t>(dim);
  const std::int64_t rows = past.shape()[d] + fresh.shape()[d], block = (rows + std::ssize(operands) - 1) / std::ssize(operands);
  Tensor part(past.dtype(), slice(past, dim, 0, block).shape());
  std::int64_t inner = 1;
  for (std::size_t i = d + 1; i < part.shape().size(); ++i) inner *= part.shape()[i];
  for (std::int64_t i = 0; i < part.count(); ++i) {
    const std::int64_t row = me * block + i / inner % block, line = i / inner / block;
    const bool old = row < past.shape()[d];
    const Tensor& from = old ? past : fresh;
    if (row < rows) copy_one(from, (line * from.shape()[d] + row - (old ? 0 : past.shape()[d])) * inner + i % inner, part, i);
  }
  return part;
}

// The sum over the ranks, and what the norm makes of it.
std::vector<Tensor> normed_sum(const OpCall& call, const std::vector<std::vector<Tensor>>& operands, int me) {
  std::vector<Tensor> parts, mine = operands[static_cast<std::size_t>(me)];
  for (const auto& of_rank : operands) parts.push_back(of_rank[0]);
  mine[0] = reduced(parts, "sum");
  const OpCall norm = parts_of(call).norm;
  return norm.op->evaluate(norm, mine);
}

// Attention over a split sequence is attention over the whole one, of which a rank keeps its rows if they are split too.
Tensor exchanged_attention(const OpCall& call, const std::vector<std::vector<Tensor>>& operands, int me) {
  const std::int64_t extents[] = {call.attributes.dim("extent").constant(), call.attributes.dim("kv_extent").constant(),
                                  call.attributes.dim("kv_extent").constant()};
  std::vector<Tensor> whole = operands[0];
  const bool rows = call.attributes.text("split") == "qkv";
  for (std::size_t i = 0; i < std::min<std::size_t>(4, whole.size()); ++i) {
    const int dim = i < 3 ? 2 : static_cast<int>(whole[3].shape().size()) - 2;
    if (!rows && (i == 0 || i == 3)) continue;
    // One row on each rank is a row for all only where the ranks have more rows than that.
    if (i == 3 && (dim < 0 || (whole[3].shape()[static_cast<std::size_t>(dim)] == 1 && extents[0] > std::ssize(operands)))) continue;
    std::vector<Tensor> parts;
    for (const auto& of_rank : operands) parts.push_back(of_rank[i]);
    whole[i] = slice(join(parts, dim), dim, 0, i < 3 ? extents[i] : extents[0]);
  }
  OpCall single = call;
  single.attributes.set("num_ranks", std::int64_t{1});
  for (std::size_t i = 0; i < whole.size(); ++i)
    if (single.operands[i]) single.operands[i] = Type{whole[i].dtype(), {whole[i].shape().begin(), whole[i].shape().end()}};
  const Tensor result = single.op->evaluate(single, whole).at(0);
  const std::int64_t block = operands[0][0].shape()[2];
  return rows ? slice(result, 2, me * block, block) : result;
}

class Lockstep {
 public:
  Lockstep(const Graph& graph, const SymbolValues& symbols)
      : graph_(graph), mesh_(graph.module().mesh), values_(static_cast<std::size_t>(mesh_.size())) {
    for (int r = 0; r < mesh_.size(); ++r) {
      symbols_.push_back(symbols);
      for (const MeshAxis& axis : mesh_.axes()) symbols_.back()["@" + axis.name] = mesh_.coordinate(r, axis.name);
    }
  }

  void load(const Tensors& inputs) {
    for (std::size_t r = 0; r < values_.size(); ++r) {
      for (const auto& input : graph_.inputs())
        values_[r][input.get()] = cut_block(inputs.at(input->name()), global_type(input->name(), input->type), input->sharding, mesh_,
                                            static_cast<int>(r), symbols_[r]);
      for (const auto& weight : graph_.weight_values())
        values_[r][weight.get()] = run_recipe(
            *weight->weight()->recipe, [&](const std::string& name) { return graph_.module().source(name); }, symbols_[r]);
    }
  }

  void run(const Node& node) {
    const bool exchanges = node.is("Attention") && node.attributes.integer("num_ranks") > 1;
    std::vector<std::vector<Tensor>> results(values_.size());
    for (std::size_t r = 0; r < values_.size(); ++r) {
      const OpCall call = node.call().bound(symbols_[r]);
      if (!exchanges && !node.op().collective) {
        results[r] = node.op().evaluate(call, operands(node, r));
        continue;
      }
      const std::vector<int> members = mesh_.group(static_cast<int>(r), node.attributes.text("axis"));
      const int me = mesh_.coordinate(static_cast<int>(r), node.attributes.text("axis"));
      std::vector<std::vector<Tensor>> theirs;
      for (const int m : members) theirs.push_back(operands(node, static_cast<std::size_t>(m)));
      if (exchanges) {
        results[r] = {exchanged_attention(call, theirs, me)};
      } else if (node.op().name.starts_with("AllReduceAdd")) {
        results[r] = normed_sum(call, theirs, me);
      } else if (node.is("Append")) {
        results[r] = {appended(call, theirs, me)};
      } else {
        std::vector<Tensor> parts;
        for (const auto& of_rank : theirs) parts.push_back(of_rank[0]);
        results[r] = {collective(call, parts, me)};
      }
    }
    for (std::size_t r = 0; r < values_.size(); ++r)
      for (std::size_t i = 0; i < results[r].size(); ++i) values_[r][node.result(i)] = results[r][i];
  }

  Tensor output(const Graph::Output& output) const {
    const Type type = global_type(output.name, output.value->type);
    Shape shape;
    for (const Dim& d : type.dims) shape.push_back(d.evaluate(symbols_[0]));
    Tensor whole(type.dtype, shape);
    std::vector<bool> written(static_cast<std::size_t>(whole.count()));
    for (std::size_t r = 0; r < values_.size(); ++r) {
      const Tensor& block = values_[r].at(output.value);
      each_element(shape, output.value->sharding, mesh_, static_cast<int>(r), symbols_[r], [&](std::int64_t i, std::int64_t at) {
        if (at < 0) return;
        const auto w = static_cast<std::size_t>(at);
        if (written[w] && std::memcmp(&block.data()[static_cast<std::size_t>(i) * bytes(type.dtype, 1)],
                                      &whole.data()[w * bytes(type.dtype, 1)], bytes(type.dtype, 1)) != 0)
          fail(ErrorCode::internal, "output {}: rank {} differs at element {}", output.name, r, at);
        copy_one(block, i, whole, at);
        written[w] = true;
      });
    }
    if (std::ranges::find(written, false) != written.end())
      fail(ErrorCode::internal, "output {}: no rank has element {}", output.name, std::ranges::find(written, false) - written.begin());
    return whole;
  }

 private:
  Type global_type(const std::string& name, const Type& local) const {
    const auto found = graph_.global_types.find(name);
    return found == graph_.global_types.end() ? local : found->second;
  }

  std::vector<Tensor> operands(const Node& node, std::size_t rank) const {
    std::vector<Tensor> all;
    for (const Value* v : node.operands()) all.push_back(v ? values_[rank].at(v) : Tensor());
    return all;
  }

  const Graph& graph_;
  const Mesh& mesh_;
  std::vector<SymbolValues> symbols_;
  std::vector<std::map<const Value*, Tensor>> values_;
};

}  // namespace

Tensor cut_block(const Tensor& whole, const Type& global, const Sharding& sharding, const Mesh& mesh, int rank,
                 const SymbolValues& symbols) {
  const auto nothing = [](std::int64_t, std::int64_t) {};
  Tensor block(global.dtype, each_element(whole.shape(), sharding, mesh, rank, symbols, nothing));
  each_element(whole.shape(), sharding, mesh, rank, symbols, [&](std::int64_t i, std::int64_t at) {
    if (at >= 0) copy_one(whole, at, block, i);
  });
  return block;
}

Tensors evaluate_ranks(const Graph& local, const Tensors& inputs, const SymbolValues& symbols) {
  Lockstep ranks(local, symbols);
  ranks.load(inputs);
  for (const auto& node : local.nodes()) ranks.run(*node);
  Tensors outputs;
  for (const auto& output : local.outputs()) outputs[output.name] = ranks.output(output);
  return outputs;
}

}  // namespace tandem::testing
