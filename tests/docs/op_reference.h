// The op reference, docs/ops.md: printed from the list of ops.
#pragma once

#include <string>

namespace tandem::testing {

// `list` is the text of ops.def, whose comments name the families.
std::string op_reference(const std::string& list);

}  // namespace tandem::testing
