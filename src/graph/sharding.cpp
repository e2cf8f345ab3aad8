#include "graph/sharding.h"

#include <algorithm>

#include "core/check.h"

namespace tandem {

std::string Type::to_string() const { return std::string(tandem::to_string(dtype)) + tandem::to_string(dims); }

bool Sharding::is_same() const {
  const auto split = [](const DimSharding& d) { return std::any_of(d.begin(), d.end(), [](const Factor& f) { return !f.axes.empty(); }); };
  return partial.empty() && varying.empty() && std::none_of(dims.begin(), dims.end(), split);
}

Sharding Sharding::split(int rank, int dim, const Dim& extent, const std::string& axis) {
  Sharding s;
  s.dims.resize(static_cast<std::size_t>(rank));
  s.dims.at(static_cast<std::size_t>(dim)) = {{extent, {axis}}};
  return s;
}

const DimSharding& Sharding::dim(int index) const {
  static const DimSharding whole;
  return dims.empty() ? whole : dims.at(static_cast<std::size_t>(index));
}

bool Sharding::is_split(int index) const {
  const DimSharding& d = dim(index);
  return std::any_of(d.begin(), d.end(), [](const Factor& f) { return !f.axes.empty(); });
}

int Sharding::split_dim(std::string_view axis) const {
  for (std::size_t i = 0; i < dims.size(); ++i)
    for (const Factor& f : dims[i])
      if (std::find(f.axes.begin(), f.axes.end(), axis) != f.axes.end()) return static_cast<int>(i);
  return -1;
}

bool Sharding::is_partial(std::string_view axis) const {
  return std::any_of(partial.begin(), partial.end(), [&](const Partial& p) { return p.axis == axis; });
}

bool Sharding::is_varying(std::string_view axis) const { return std::find(varying.begin(), varying.end(), axis) != varying.end(); }

bool Sharding::mentions(std::string_view axis) const { return split_dim(axis) >= 0 || is_partial(axis) || is_varying(axis); }

Sharding Sharding::normalized(const Mesh& mesh) const {
  const auto alone = [&](const std::string& axis) { return mesh.size(axis) == 1; };
  Sharding out;
  for (const DimSharding& d : dims) {
    DimSharding kept;
    for (const Factor& f : d) {
      Factor g{f.size, {}};
      std::copy_if(f.axes.begin(), f.axes.end(), std::back_inserter(g.axes), [&](const std::string& a) { return !alone(a); });
      // Blocks of whole rows: {4:tp}{2} over two ranks is {8:tp}.
      const bool joins =
          !kept.empty() && g.axes.empty() && (kept.back().axes.empty() || kept.back().size.exact_divide(split_count(kept.back(), mesh)));
      if (joins) kept.back().size = kept.back().size * g.size;
      else kept.push_back(std::move(g));
    }
    std::erase_if(kept, [](const Factor& f) { return f.axes.empty() && f.size == Dim(1); });
    if (kept.size() == 1 && kept[0].axes.empty()) kept.clear();
    out.dims.push_back(std::move(kept));
  }
  if (std::all_of(out.dims.begin(), out.dims.end(), [](const DimSharding& d) { return d.empty(); })) out.dims.clear();
  std::copy_if(partial.begin(), partial.end(), std::back_inserter(out.partial), [&](const Partial& p) { return !alone(p.axis); });
  std::copy_if(varying.begin(), varying.end(), std::back_inserter(out.varying), [&](const std::string& a) { return !alone(a); });
  std::sort(out.partial.begin(), out.partial.end(), [](const Partial& a, const Partial& b) { return a.axis < b.axis; });
  std::sort(out.varying.begin(), out.varying.end());
  return out;
}

std::string Sharding::to_string() const {
  std::string text = "{";
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (i) text += ",";
    if (dims[i].empty()) text += "_";
    for (std::size_t j = 0; j < dims[i].size(); ++j) {
      const Factor& f = dims[i][j];
      text += fmt::format("{}({}){}{}", j ? "." : "", f.size.to_string(), f.axes.empty() ? "" : ":", fmt::join(f.axes, ":"));
    }
  }
  for (const Partial& p : partial) text += fmt::format(";partial({}:{})", p.axis, tandem::to_string(p.reduction));
  for (const std::string& v : varying) text += fmt::format(";varying({})", v);
  return text + "}";
}

int split_count(const Factor& factor, const Mesh& mesh) {
  int count = 1;
  for (const std::string& axis : factor.axes) count *= mesh.size(axis);
  return count;
}

Dim split_index(const Factor& factor, const Mesh& mesh) {
  Dim index = 0;
  for (const std::string& axis : factor.axes)
    index = index * Dim(mesh.size(axis)) + (mesh.size(axis) == 1 ? Dim(0) : Dim::symbol("@" + axis));
  return index;
}

Dim local_extent(const Dim& extent, const DimSharding& sharding, const Mesh& mesh) {
  if (sharding.empty()) return extent;
  Dim local = 1;
  for (const Factor& f : sharding) local = local * ceil_div(f.size, split_count(f, mesh));
  return local;
}

Type local_type(const Type& global, const Sharding& sharding, const Mesh& mesh) {
  Type local = global;
  for (std::size_t i = 0; i < local.dims.size() && !sharding.dims.empty(); ++i)
    local.dims[i] = local_extent(global.dims[i], sharding.dim(static_cast<int>(i)), mesh);
  return local;
}

}  // namespace tandem
