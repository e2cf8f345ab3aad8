// Attributes between the public API and graphs.
#pragma once

#include "graph/attribute.h"
#include "tandem/ops.h"

namespace tandem {

// Throws Error(invalid_argument) saying what the attribute is and what was found.
AttributeValue to_graph(const Field& field, const OpAttribute& value);
OpAttribute to_public(const AttributeValue& value);
std::vector<Dim> to_dims(const Extents& extents);
Extents to_extents(const std::vector<Dim>& dims);
// The memory of an array as a tensor: shared, or copied where it is not aligned. Throws Error(invalid_argument) naming `what`.
Tensor shared_tensor(const Array& array, const std::string& what);
Tensor copied_tensor(const Array& array, const std::string& what);

}  // namespace tandem
