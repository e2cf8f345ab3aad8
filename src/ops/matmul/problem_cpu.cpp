#include "ops/matmul/problem_cpu.h"

#include <array>
#include <utility>

#include "core/check.h"
#include "ops/half_types_cpu.h"
#include "ops/shape_rules.h"

namespace tandem {
namespace {

Shape batch_of(const Shape& shape) { return shape.size() <= 2 ? Shape{} : Shape(shape.begin(), shape.end() - 2); }

}  // namespace

Activation activation_of(const std::string& word) {
  constexpr std::array<std::pair<std::string_view, Activation>, 7> words = {{{"none", Activation::none},
                                                                             {"gelu", Activation::gelu},
                                                                             {"gelu_tanh", Activation::gelu_tanh},
                                                                             {"silu", Activation::silu},
                                                                             {"relu", Activation::relu},
                                                                             {"tanh", Activation::tanh},
                                                                             {"sigmoid", Activation::sigmoid}}};
  for (const auto& [name, activation] : words)
    if (name == word) return activation;
  fail(ErrorCode::internal, "there is no activation {}", word);
}

bool is_single_matrix(const Type& b) {
  for (std::size_t i = 0; i + 2 < b.dims.size(); ++i)
    if (b.dims[i] != Dim(1)) return false;
  return b.dims.size() >= 2;
}

std::optional<std::string> matmul_refusal(const OpCall& call) {
  for (const auto& operand : call.operands) {
    if (!operand) continue;
    if (!is_vector_float(operand->dtype)) return "it multiplies f32, f16 and bf16 only";
    if (operand->dtype != call.results.at(0).dtype) return "operands and result differ in dtype";
  }
  if (call.has_operand(kMatMulResidual) && call.operand(kMatMulResidual).dims != call.results.at(0).dims)
    return "the residual is not shaped as the result";
  if (call.has_operand(kMatMulBias) && call.operand(kMatMulBias).dims.size() != 1) return "the bias is not a vector";
  return std::nullopt;
}

MatMulProblem matmul_problem(const OpCall& call) {
  MatMulProblem p;
  const Shape a = shape_of(call.operand(kMatMulA)), b = shape_of(call.operand(kMatMulB));
  p.dtype = call.results.at(0).dtype;
  p.m = a[a.size() - 2];
  p.k = a.back();
  p.n = b.back();
  p.activation = activation_of(call.attributes.text("activation"));
  p.bias = call.has_operand(kMatMulBias);
  p.residual = call.has_operand(kMatMulResidual);

  const Shape a_batch = batch_of(a), b_batch = batch_of(b);
  if (element_count(b_batch) == 1) {
    p.m *= element_count(a_batch);
    p.products.push_back({0, 0, 0});
    return p;
  }
  const Shape batch = batch_of(shape_of(call.results[0]));
  for_each_offset<2>(batch, {strides_over(a_batch, batch), strides_over(b_batch, batch)}, [&](std::int64_t i, const auto& at) {
    p.products.push_back({at[0] * p.m * p.k, at[1] * p.k * p.n, i * p.m * p.n});
  });
  return p;
}

}  // namespace tandem
