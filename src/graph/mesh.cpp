#include "graph/mesh.h"

#include <charconv>

#include "core/check.h"
#include "core/numeric.h"

namespace tandem {

Mesh::Mesh(std::vector<MeshAxis> axes) : axes_(std::move(axes)) {
  std::int64_t total = 1;
  for (std::size_t i = 0; i < axes_.size(); ++i) {
    if (axes_[i].name.empty()) fail(ErrorCode::invalid_argument, "a mesh axis needs a name");
    if (axes_[i].size < 1)
      fail(ErrorCode::invalid_argument, "mesh axis '{}' has size {}, expected at least 1", axes_[i].name, axes_[i].size);
    for (std::size_t j = 0; j < i; ++j)
      if (axes_[j].name == axes_[i].name) fail(ErrorCode::invalid_argument, "mesh axis '{}' is given twice", axes_[i].name);
    total = checked_multiply(total, axes_[i].size);
    if (total > 65536) fail(ErrorCode::invalid_argument, "mesh {} has more than 65536 ranks", to_string());
  }
}

Mesh Mesh::parse(std::string_view text) {
  std::vector<MeshAxis> axes;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    text = comma == std::string_view::npos ? "" : text.substr(comma + 1);
    const std::size_t equals = part.find('=');
    int size = 0;
    if (equals == std::string_view::npos || equals == 0)
      fail(ErrorCode::invalid_argument, "mesh part '{}' is not AXIS=SIZE, like tp=2", part);
    const char* end = part.data() + part.size();
    const auto [at, error] = std::from_chars(part.data() + equals + 1, end, size);
    if (error != std::errc{} || at != end) fail(ErrorCode::invalid_argument, "mesh part '{}': the size is no whole number", part);
    axes.push_back({std::string(part.substr(0, equals)), size});
  }
  return Mesh(std::move(axes));
}

int Mesh::size() const {
  int total = 1;
  for (const MeshAxis& a : axes_) total *= a.size;
  return total;
}

bool Mesh::has(std::string_view axis) const {
  for (const MeshAxis& a : axes_)
    if (a.name == axis) return true;
  return false;
}

int Mesh::size(std::string_view axis) const {
  for (const MeshAxis& a : axes_)
    if (a.name == axis) return a.size;
  fail(ErrorCode::invalid_argument, "the mesh {} has no axis '{}'", to_string(), axis);
}

int Mesh::stride(std::string_view axis) const {
  int stride = 1;
  for (auto a = axes_.rbegin(); a != axes_.rend() && a->name != axis; ++a) stride *= a->size;
  return stride;
}

int Mesh::coordinate(int rank, std::string_view axis) const { return rank / stride(axis) % size(axis); }

std::vector<int> Mesh::group(int rank, std::string_view axis) const {
  const int step = stride(axis), first = rank - coordinate(rank, axis) * step;
  std::vector<int> members;
  for (int i = 0; i < size(axis); ++i) members.push_back(first + i * step);
  return members;
}

std::vector<std::vector<int>> Mesh::groups(std::string_view axis) const {
  std::vector<std::vector<int>> all;
  for (int rank = 0; rank < size(); ++rank)
    if (coordinate(rank, axis) == 0) all.push_back(group(rank, axis));
  return all;
}

std::string Mesh::to_string() const {
  std::string text;
  for (const MeshAxis& a : axes_) text += (text.empty() ? "" : ",") + a.name + "=" + std::to_string(a.size);
  return text;
}

}  // namespace tandem
