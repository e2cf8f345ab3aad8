// Moving elements without looking at them, by strides: what the evaluators and folds of layout and gather ops share.
#pragma once

#include <optional>

#include "core/tensor.h"
#include "graph/builder.h"
#include "graph/op_def.h"

namespace tandem {

// to[j] = from[i] for elements of `dtype`; also half bytes.
void copy_element(DType dtype, const std::byte* from, std::int64_t i, std::byte* to, std::int64_t j);

// result[index] = source[offset + Σ index·stride], strides in elements.
Tensor take_strided(const Tensor& source, const Shape& shape, const Shape& strides, std::int64_t offset = 0);

// The extents as numbers if they are known and hold few enough elements to be followed as Dims.
std::optional<Shape> content_shape(const std::vector<Dim>& dims);
// The same for contents; nothing if the result is no content or an index lies outside `source`.
std::optional<DimContent> take_strided(const DimContent& source, const std::vector<Dim>& dims, const Shape& strides,
                                       std::int64_t offset = 0);

// The smaller or larger of two Dims, decided by the graph's profiles where those say more than "not negative".
Dim min_in(const GraphBuilder& builder, const Dim& a, const Dim& b);
Dim max_in(const GraphBuilder& builder, const Dim& a, const Dim& b);
// Whether a ≤ b for all values of the profiles.
bool surely_at_most(const GraphBuilder& builder, const Dim& a, const Dim& b);

}  // namespace tandem
