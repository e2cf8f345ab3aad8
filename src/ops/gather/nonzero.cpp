#include "ops/gather/nonzero.h"

#include "core/check.h"
#include "core/tensor.h"
#include "graph/builder.h"
#include "graph/measured.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

std::vector<Type> infer(const OpCall& call) {
  const std::string& symbol = call.attributes.text("symbol");
  if (symbol.empty()) fail(ErrorCode::invalid_model, "it needs a name for the number of its tuples, the attribute symbol");
  return {{DType::i64, {Dim(call.operand(0).rank()), Dim::symbol(symbol)}}, {DType::i64, {}}};
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const Tensor& x = in[0];
  std::vector<std::int64_t> found;
  for (std::int64_t i = 0; i < x.count(); ++i)
    if (is_float(x.dtype()) ? x.at(i) != 0 : x.int_at(i) != 0) found.push_back(i);
  const auto rank = static_cast<std::size_t>(call.operand(0).rank());
  const auto count = static_cast<std::int64_t>(found.size());
  Tensor indices(DType::i64, {static_cast<std::int64_t>(rank), count});
  const Shape strides = row_major_strides(x.shape());
  for (std::size_t d = 0; d < rank; ++d)
    for (std::int64_t n = 0; n < count; ++n)
      indices.mutable_as<std::int64_t>()[static_cast<std::int64_t>(d) * count + n] =
          found[static_cast<std::size_t>(n)] / strides[d] % x.shape()[d];
  return {indices, Tensor::of_ints(DType::i64, {}, std::vector<std::int64_t>{count})};
}

// Of what is known now the number is no symbol.
std::vector<Value*> import(const ForeignNode& node, GraphBuilder& builder) {
  Value* x = node.required(0);
  if (const auto known = builder.constant_of(x)) {
    OpCall call{&ops::NonZero, Attributes(&ops::NonZero.fields), {Type{known->dtype(), dims_of_shape(known->shape())}}, {}};
    return {builder.constant(evaluate(call, std::vector{*known}).at(0))};
  }
  return {builder.add_all("NonZero", {x}, {{"symbol", fresh_measured_symbol(builder.graph(), "non_zero")}}).at(0)};
}

}  // namespace

NonZeroView nonzero_view(const OpCall& call) {
  const Type& x = call.operand(0);
  const int width = bits(x.dtype);
  NonZeroView view{static_cast<std::size_t>(width / 8), ~std::uint64_t{0} >> (64 - width), shape_of(x), 0};
  if (is_float(x.dtype)) view.mask >>= 1;
  view.count = element_count(view.extents);
  return view;
}

const OpDef ops::NonZero = {
    .name = "NonZero",
    .doc =
        "The indices of the elements that are not zero, in row-major order: column j of `indices` ([rank of x, number]) is the index of "
        "the "
        "j-th of them; NaN is not zero, −0 is. The number is known only when the op has run: its extent is the measured symbol `symbol`, "
        "at "
        "most the number of elements, and `count` holds it.",
    .fields = {{"symbol",
                FieldKind::text,
                std::string(),
                {},
                "the name of that extent, which no other has; a network gives it one where it is empty"}},
    .operands = {{"x"}},
    .results = {{"indices", "i64"}, {"count", "an i64 scalar"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .evaluate = evaluate,
    .onnx = {{.op_type = "NonZero", .since = 9, .import = import}},
};

}  // namespace tandem
