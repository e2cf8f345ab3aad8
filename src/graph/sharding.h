// Type and Sharding: what a value is, and how it lies over the mesh.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/collective.h"
#include "core/dim.h"
#include "graph/mesh.h"
#include "tandem/types.h"

namespace tandem {

struct Type {
  DType dtype = DType::f32;
  std::vector<Dim> dims;
  int rank() const { return static_cast<int>(dims.size()); }
  std::string to_string() const;  // f32[B,S,384]
  bool operator==(const Type&) const = default;
};

// One factor of a dimension, and the mesh axes that split it (major first). A dimension is the ordered product of its
// factors, so `3·H·D` split by heads is {3}{H:tp}{D}. A rank's block of a split factor is ⌈size / ranks⌉ long.
struct Factor {
  Dim size;
  std::vector<std::string> axes;
  bool operator==(const Factor&) const = default;
};
// Empty: the dimension is whole on every rank.
using DimSharding = std::vector<Factor>;

struct Partial {
  std::string axis;
  Reduction reduction = Reduction::sum;
  bool operator==(const Partial&) const = default;
};

// Per mesh axis a value is exactly one of: same (not mentioned), split (in `dims`), partial (the true value is the
// reduction over the axis) or varying (each rank its own).
struct Sharding {
  std::vector<DimSharding> dims;  // empty, or one entry per dimension
  std::vector<Partial> partial;
  std::vector<std::string> varying;

  // The same on all ranks of all axes.
  bool is_same() const;
  // One mesh axis splits one dimension as a whole.
  static Sharding split(int rank, int dim, const Dim& extent, const std::string& axis);
  const DimSharding& dim(int index) const;  // an empty DimSharding where nothing is said
  bool is_split(int dim) const;
  bool mentions(std::string_view axis) const;
  bool is_partial(std::string_view axis) const;
  bool is_varying(std::string_view axis) const;
  // The dimension that `axis` splits, or -1.
  int split_dim(std::string_view axis) const;
  // Drops one-rank axes, factors that nobody splits, and merges neighbours, so that equal shardings compare equal.
  Sharding normalized(const Mesh& mesh) const;
  std::string to_string() const;  // {_,_,12:tp*32;partial(tp:sum);varying(dp)}
  bool operator==(const Sharding&) const = default;
};

// What one rank holds of a dimension or value: blocks of ⌈size/N⌉ per split factor.
Dim local_extent(const Dim& extent, const DimSharding& sharding, const Mesh& mesh);
Type local_type(const Type& global, const Sharding& sharding, const Mesh& mesh);
// How many ranks split a factor.
int split_count(const Factor& factor, const Mesh& mesh);
// Position of this rank among them, as an expression in coordinate symbols (@tp).
Dim split_index(const Factor& factor, const Mesh& mesh);

}  // namespace tandem
