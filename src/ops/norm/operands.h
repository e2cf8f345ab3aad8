// The operands of the four norms, as their kernels see them.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "ops/shape_rules.h"

namespace tandem {

// x, the residual of the Add forms, scale, LayerNorm's optional bias, and the optional offset of the Add forms.
struct NormOperands {
  bool adds = false, centers = false;
  std::size_t scale() const { return adds ? 2 : 1; }
  std::size_t bias() const { return scale() + 1; }
  std::size_t offset() const { return centers ? bias() + 1 : bias(); }
};

inline NormOperands norm_operands(const OpCall& call) { return {call.op->name.starts_with("Add"), call.op->name.ends_with("LayerNorm")}; }

// Kernels take parameters that broadcast over nothing.
inline std::optional<std::string> norm_refusal(const OpCall& call) {
  const Type& x = call.operand(0);
  const int axis = normalize_axis(call.attributes.integer("axis"), x.rank());
  const std::vector<Dim> normalized(x.dims.begin() + axis, x.dims.end());
  for (std::size_t i = norm_operands(call).scale(); i < call.operands.size(); ++i)
    if (call.has_operand(i) && call.operand(i).dims != normalized)
      return "scale, bias or offset is not shaped as the normalized dimensions";
  return std::nullopt;
}

}  // namespace tandem
