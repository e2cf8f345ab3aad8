#include <cmath>

#include "core/tensor.h"
#include "graph/graph.h"
#include "ops/along_axis.h"
#include "ops/ops.h"
#include "ops/pointwise/define.h"

namespace tandem::ops {
namespace {

std::vector<Type> infer(const OpCall& call) {
  require_dtype(call, 0, is_float, "a float type");
  axis_of(call);
  return {call.operand(0)};
}

template <bool kLog>
std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const Tensor& x = in[0];
  Tensor y(x.dtype(), x.shape());
  std::byte* data = y.mutable_data();
  const AxisView view(x.shape(), axis_of(call));
  for (std::int64_t line = 0; line < view.outer * view.inner; ++line) {
    const std::int64_t base = line / view.inner * view.extent * view.inner + line % view.inner;
    double top = -INFINITY, sum = 0;
    for (std::int64_t j = 0; j < view.extent; ++j) top = std::fmax(top, x.at(base + j * view.inner));
    for (std::int64_t j = 0; j < view.extent; ++j) sum += std::exp(x.at(base + j * view.inner) - top);
    for (std::int64_t j = 0; j < view.extent; ++j) {
      const std::int64_t i = base + j * view.inner;
      store_element(y.dtype(), data, i, kLog ? x.at(i) - top - std::log(sum) : std::exp(x.at(i) - top) / sum);
    }
  }
  return {y};
}

// Before opset 13 the axis stands for all dimensions from it on, flattened.
std::vector<Value*> import(const ForeignNode& node, GraphBuilder& builder) {
  Value* x = node.required(0);
  const int rank = x->type.rank();
  const int axis = normalize_axis(node.integer("axis", node.opset < 13 ? 1 : -1), rank);
  if (node.opset >= 13 || axis == rank - 1) return {builder.add(node.op_type, {x}, {{"axis", std::int64_t{axis}}})};
  const auto cut = x->type.dims.begin() + axis;
  const std::vector<Dim> flat = {product({x->type.dims.begin(), cut}), product({cut, x->type.dims.end()})};
  Value* y = builder.add(node.op_type, {builder.add("Reshape", {x}, {{"shape", flat}})}, {{"axis", std::int64_t{1}}});
  return {builder.add("Reshape", {y}, {{"shape", x->type.dims}})};
}

template <bool kLog>
OpDef softmax(std::string_view name, std::string_view doc) {
  return {
      .name = name,
      .doc = doc,
      .fields = {{"axis", FieldKind::integer, std::int64_t{-1}, {}, "the dimension summed over; negative: from the end"}},
      .operands = {{"x"}},
      .min_operands = 1,
      .max_operands = 1,
      .infer = infer,
      .rule = whole_along_axis,
      .evaluate = evaluate<kLog>,
      .onnx = {{name, 1, import}},
  };
}

}  // namespace

const OpDef LogSoftmax = softmax<true>("LogSoftmax", "y = x − ln Σ exp x, the sum along `axis`.");
const OpDef Softmax = softmax<false>("Softmax", "y = exp x / Σ exp x, the sum along `axis`.");

}  // namespace tandem::ops
