#include "ops/matmul/problem_cpu.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/check.h"
#include "ops/call_cpu.h"
#include "ops/half_types_cpu.h"

namespace tandem {
namespace {

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
  fail(ErrorCode::internal, "MatMul knows no activation {}", word);
}

Shape batch_of(const Shape& shape) { return shape.size() <= 2 ? Shape{} : Shape(shape.begin(), shape.end() - 2); }

}  // namespace

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
  Shape a = bound_shape(call.operand(kMatMulA)), b = bound_shape(call.operand(kMatMulB));
  if (a.size() == 1) a.insert(a.begin(), 1);
  if (b.size() == 1) b.push_back(1);
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
  Shape batch(std::max(a_batch.size(), b_batch.size()), 1);
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const auto from_back = [i, &batch](const Shape& s) { return i + s.size() < batch.size() ? 1 : s[i + s.size() - batch.size()]; };
    batch[i] = from_back(a_batch) == 1 ? from_back(b_batch) : from_back(a_batch);
  }
  const auto a_strides = broadcast_strides(a_batch, batch), b_strides = broadcast_strides(b_batch, batch);
  const std::int64_t count = element_count(batch);
  for (std::int64_t i = 0; i < count; ++i) {
    MatMulProblem::Offsets at{0, 0, i * p.m * p.n};
    std::int64_t rest = i;
    for (std::size_t d = batch.size(); d-- > 0; rest /= batch[d]) {
      at.a += rest % batch[d] * a_strides[d] * p.m * p.k;
      at.b += rest % batch[d] * b_strides[d] * p.k * p.n;
    }
    p.products.push_back(at);
  }
  return p;
}

}  // namespace tandem
