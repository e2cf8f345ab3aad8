// Gated: SwiGLU, GeGLU and their kin over the two halves of one product.
#include "core/check.h"
#include "core/tensor.h"
#include "ops/ops.h"
#include "ops/pointwise/scalar.h"
#include "ops/shape_rules.h"

namespace tandem::ops {
namespace {

std::vector<Type> infer(const OpCall& call) {
  Type x = require_rank(call, 0, 1, 32);
  require_dtype(call, 0, is_float, "a float type");
  const auto half = x.dims.back().exact_divide(2);
  if (!half) fail(ErrorCode::invalid_model, "{} has no two halves along its last dimension", x.to_string());
  x.dims.back() = *half;
  return {x};
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const auto activate = scalar::activation(call.attributes.text("activation"));
  Tensor y(in[0].dtype(), shape_of(call.results.at(0)));
  const std::int64_t half = y.shape().back();
  for (std::int64_t i = 0; i < y.count(); ++i) {
    const std::int64_t gate = i / half * 2 * half + i % half;
    store_element(y.dtype(), y.mutable_data(), i, activate(in[0].at(gate)) * in[0].at(gate + half));
  }
  return {y};
}

}  // namespace

const OpDef Gated = {
    .name = "Gated",
    .doc = "y = activation(first half of x)·(second half of x), along the last dimension; made by a pass from a gate and what it gates.",
    .fields = {{"activation",
                FieldKind::text,
                std::string("silu"),
                {"none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"},
                "applied to the first half"}},
    .operands = {{"x"}},
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer,
    .evaluate = evaluate,
};

}  // namespace tandem::ops
