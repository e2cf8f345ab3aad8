// Cutting whole tensors into the blocks of ranks, and putting the blocks together again.
#pragma once

#include <optional>

#include "core/tensor.h"
#include "graph/sharding.h"

namespace tandem {

// Where one rank's block lies: the tensor with every split dimension opened into its factors.
struct BlockMap {
  Shape whole;                      // opened extents of the whole tensor
  Shape block;                      // opened extents of a block
  std::vector<std::int64_t> begin;  // of this rank's block
  std::size_t element_bytes = 0;

  // `global` and the factors' sizes are evaluated with `symbols`.
  BlockMap(const Type& global, const Sharding& sharding, const Mesh& mesh, int rank, const SymbolValues& symbols);
  // Where the block starts in the whole tensor, in elements, if it lies there in one piece and nothing of it is padding.
  std::optional<std::int64_t> place_in_whole() const;
  // Elements past the end of the whole tensor are zeros in the block, and are not written back.
  void scatter(const std::byte* whole, std::byte* block) const;
  void gather(const std::byte* block, std::byte* whole) const;

 private:
  template <typename Copy>
  void each_row(Copy copy) const;
};

// Whether this rank's block is the one that counts, among ranks that hold equal blocks.
bool owns_block(const Sharding& sharding, const Mesh& mesh, int rank);

}  // namespace tandem
