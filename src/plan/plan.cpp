#include "plan/plan.h"

#include <algorithm>

#include "core/check.h"
#include "core/digest.h"

namespace tandem {

SymbolValues coordinates(const Mesh& mesh, int rank) {
  SymbolValues values;
  for (const MeshAxis& axis : mesh.axes()) values["@" + axis.name] = mesh.coordinate(rank, axis.name);
  return values;
}

std::size_t Plan::profiles() const {
  const auto other = std::ranges::find_if(programs, [&](const Program& p) { return p.name != programs[0].name; });
  return static_cast<std::size_t>(other - programs.begin());
}

StoredCode stored_code(std::string text, int sm, std::shared_ptr<const std::vector<std::byte>> bytes) {
  const auto size = static_cast<std::int64_t>(bytes->size());
  const std::string digest = fmt::format("{:016x}", text_digest({reinterpret_cast<const char*>(bytes->data()), bytes->size()}));
  return {std::move(text), sm, digest, size, std::move(bytes)};
}

std::string slice_name(const PlanWeight& weight, const Mesh& mesh, int rank) {
  std::string name = weight.name;
  for (const std::string& axis : weight.axes)
    name += fmt::format("{}{}={}", &axis == &weight.axes.front() ? "@" : ",", axis, mesh.coordinate(rank, axis));
  return name;
}

}  // namespace tandem
