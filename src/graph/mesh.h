// Mesh: the devices of a team as a grid with ordered named axes; row-major, last axis fastest.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

struct MeshAxis {
  std::string name;
  int size = 1;
  bool operator==(const MeshAxis&) const = default;
};

class Mesh {
 public:
  Mesh() = default;
  // Throws Error(invalid_argument) for an empty or repeated name or a size below 1.
  explicit Mesh(std::vector<MeshAxis> axes);
  // Reads "tp=2,cp=2"; the empty string is the mesh of one rank.
  static Mesh parse(std::string_view text);

  const std::vector<MeshAxis>& axes() const { return axes_; }
  // Product of the axis sizes; 1 without axes.
  int size() const;
  bool has(std::string_view axis) const;
  // Size of an axis; throws Error(invalid_argument) naming it if there is none.
  int size(std::string_view axis) const;
  // Position of `rank` along `axis`.
  int coordinate(int rank, std::string_view axis) const;
  // The ranks that share all other coordinates with `rank`, in the order of `axis`.
  std::vector<int> group(int rank, std::string_view axis) const;
  // All groups of an axis: a partition of the ranks.
  std::vector<std::vector<int>> groups(std::string_view axis) const;
  std::string to_string() const;
  bool operator==(const Mesh&) const = default;

 private:
  int stride(std::string_view axis) const;
  std::vector<MeshAxis> axes_;
};

}  // namespace tandem
