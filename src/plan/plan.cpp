#include "plan/plan.h"

#include "core/check.h"

namespace tandem {

SymbolValues coordinates(const Mesh& mesh, int rank) {
  SymbolValues values;
  for (const MeshAxis& axis : mesh.axes()) values["@" + axis.name] = mesh.coordinate(rank, axis.name);
  return values;
}

std::string slice_name(const PlanWeight& weight, const Mesh& mesh, int rank) {
  std::string name = weight.name;
  for (const std::string& axis : weight.axes)
    name += fmt::format("{}{}={}", &axis == &weight.axes.front() ? "@" : ",", axis, mesh.coordinate(rank, axis));
  return name;
}

}  // namespace tandem
