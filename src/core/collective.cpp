#include "core/collective.h"

#include <array>
#include <vector>

#include "core/check.h"

namespace tandem {
namespace {

constexpr std::array kCollectives = {
#define TANDEM_COLLECTIVE(name, op, reduces, rooted, extent) \
  CollectiveInfo{Collective::name, #name, #op, reduces, rooted, CollectiveExtent::extent},
#include "tandem/collective.def"
};

constexpr std::array kReductions = {
#define TANDEM_REDUCTION(name) std::string_view(#name),
#include "tandem/collective.def"
};

}  // namespace

std::span<const CollectiveInfo> collectives() { return kCollectives; }
const CollectiveInfo& info(Collective kind) { return kCollectives.at(static_cast<std::size_t>(kind)); }
std::string_view to_string(Collective kind) { return info(kind).name; }
std::string_view to_string(Reduction reduction) { return kReductions.at(static_cast<std::size_t>(reduction)); }

Collective parse_collective(std::string_view word) {
  std::vector<std::string_view> names;
  for (const CollectiveInfo& c : kCollectives) {
    if (c.name == word || c.op == word) return c.kind;
    names.push_back(c.name);
  }
  fail(ErrorCode::invalid_argument, "'{}' is no collective; there are {}", word, fmt::join(names, " "));
}

Reduction parse_reduction(std::string_view word) {
  for (std::size_t i = 0; i < kReductions.size(); ++i)
    if (kReductions[i] == word) return static_cast<Reduction>(i);
  fail(ErrorCode::invalid_argument, "'{}' is no reduction; there are {}", word, fmt::join(kReductions, " "));
}

}  // namespace tandem
