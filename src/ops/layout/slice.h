// Slices for importers of other ops (Split, negative Pad).
#pragma once

#include "graph/builder.h"

namespace tandem {

// Rows start … end of one axis, which must lie inside it; the value itself if that is all of it.
Value* slice_axis(GraphBuilder& b, Value* x, int axis, const Dim& start, const Dim& end);

}  // namespace tandem
