#include "team/blocks.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/numeric.h"

namespace tandem {

BlockMap::BlockMap(const Type& global, const Sharding& sharding, const Mesh& mesh, int rank, const SymbolValues& symbols)
    : element_bytes(bytes(global.dtype, 1)) {
  for (int d = 0; d < global.rank(); ++d) {
    if (!sharding.is_split(d)) {
      whole.push_back(global.dims[static_cast<std::size_t>(d)].evaluate(symbols));
      block.push_back(whole.back());
      begin.push_back(0);
      continue;
    }
    for (const Factor& factor : sharding.dim(d)) {
      std::int64_t index = 0;
      for (const std::string& axis : factor.axes) index = index * mesh.size(axis) + mesh.coordinate(rank, axis);
      whole.push_back(factor.size.evaluate(symbols));
      block.push_back(ceil_divide(whole.back(), split_count(factor, mesh)));
      begin.push_back(index * block.back());
    }
  }
  if (whole.empty()) {  // a scalar
    whole = block = {1};
    begin = {0};
  }
}

// Calls copy(offset in whole, offset in block, elements) for every run of the innermost dimension that exists on both sides.
template <typename Copy>
void BlockMap::each_row(Copy copy) const {
  const std::size_t last = whole.size() - 1;
  const std::int64_t length = std::min(block[last], whole[last] - begin[last]);
  std::int64_t rows = 1;
  for (std::size_t d = 0; d < last; ++d) rows *= block[d];
  if (length <= 0) return;
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t rest = row, offset = 0, stride = whole[last];
    bool inside = true;
    for (std::size_t d = last; d-- > 0;) {
      const std::int64_t index = begin[d] + rest % block[d];
      rest /= block[d];
      inside = inside && index < whole[d];
      offset += index * stride;
      stride *= whole[d];
    }
    if (inside) copy(offset + begin[last], row * block[last], length);
  }
}

std::optional<std::int64_t> BlockMap::place_in_whole() const {
  std::size_t last_cut = whole.size();
  for (std::size_t d = 0; d < whole.size(); ++d) {
    if (begin[d] + block[d] > whole[d]) return std::nullopt;
    if (block[d] != whole[d]) last_cut = d;
  }
  if (last_cut == whole.size()) return 0;
  for (std::size_t d = 0; d < last_cut; ++d)
    if (block[d] != 1) return std::nullopt;
  std::int64_t offset = 0;
  for (std::size_t d = 0; d < whole.size(); ++d) offset = offset * whole[d] + begin[d];
  return offset;
}

void BlockMap::scatter(const std::byte* from, std::byte* to) const {
  bool padded = false;
  for (std::size_t d = 0; d < whole.size(); ++d) padded = padded || begin[d] + block[d] > whole[d];
  if (padded) std::memset(to, 0, static_cast<std::size_t>(element_count(block)) * element_bytes);
  each_row([&](std::int64_t source, std::int64_t target, std::int64_t count) {
    std::memcpy(to + static_cast<std::size_t>(target) * element_bytes, from + static_cast<std::size_t>(source) * element_bytes,
                static_cast<std::size_t>(count) * element_bytes);
  });
}

void BlockMap::gather(const std::byte* from, std::byte* to) const {
  each_row([&](std::int64_t target, std::int64_t source, std::int64_t count) {
    std::memcpy(to + static_cast<std::size_t>(target) * element_bytes, from + static_cast<std::size_t>(source) * element_bytes,
                static_cast<std::size_t>(count) * element_bytes);
  });
}

bool owns_block(const Sharding& sharding, const Mesh& mesh, int rank) {
  return std::ranges::all_of(
      mesh.axes(), [&](const MeshAxis& axis) { return sharding.split_dim(axis.name) >= 0 || mesh.coordinate(rank, axis.name) == 0; });
}

}  // namespace tandem
