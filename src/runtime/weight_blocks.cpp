#include "runtime/weight_blocks.h"

#include <algorithm>

#include "device/device.h"

namespace tandem {
namespace {

const Fetch* find_fetch(const std::vector<Fetch>& fetches, std::size_t step) {
  const auto found = std::ranges::lower_bound(fetches, static_cast<int>(step), {}, &Fetch::step);
  return found != fetches.end() && found->step == static_cast<int>(step) ? &*found : nullptr;
}

}  // namespace

int WeightBlocks::add(std::size_t bytes, Source source) {
  uses.bytes.push_back(aligned_size(bytes));
  uses.stays.push_back(false);
  sources.push_back(source);
  return static_cast<int>(sources.size()) - 1;
}

std::optional<std::size_t> Streaming::offset(std::size_t program, std::size_t step, int block) const {
  const Fetch* fetch = find_fetch(fetches[program], step);
  if (!fetch) return std::nullopt;
  const auto piece = std::ranges::find(fetch->pieces, block, &Fetch::Piece::block);
  return piece == fetch->pieces.end() ? std::nullopt : std::optional(piece->offset);
}

bool Streaming::fetches_for(std::size_t program, std::size_t step) const { return find_fetch(fetches[program], step) != nullptr; }

}  // namespace tandem
