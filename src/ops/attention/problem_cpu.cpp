#include "ops/attention/problem_cpu.h"

#include "core/tensor.h"
#include "ops/attention/flat.h"
#include "ops/half_types_cpu.h"
#include "ops/shape_rules.h"

namespace tandem::attention {

std::optional<std::string> attention_refusal(const OpCall& call) {
  if (!is_vector_float(call.operand(kQ).dtype)) return "it takes f32, f16 and bf16 only";
  if (call.has_operand(kMask) && call.operand(kMask).dtype != DType::boolean && !is_vector_float(call.operand(kMask).dtype))
    return "its mask is bool, f32, f16 or bf16 only";
  return std::nullopt;
}

Steps dense_steps(std::int64_t heads, std::int64_t rows, std::int64_t size) { return {heads * rows * size, rows * size, size}; }

AttentionProblem problem_of(const OpCall& call) {
  const Shape q = shape_of(call.operand(kQ)), k = shape_of(call.operand(kK)), v = shape_of(call.operand(kV));
  AttentionProblem p;
  p.dtype = p.out_dtype = call.operand(kQ).dtype;
  p.batch = q[0];
  p.heads = q[1];
  p.rows = q[2];
  p.size = q[3];
  p.kv_heads = k[1];
  p.columns = k[2];
  p.value_size = v[3];
  p.q_steps = dense_steps(p.heads, p.rows, p.size);
  p.k_steps = dense_steps(p.kv_heads, p.columns, p.size);
  p.v_steps = dense_steps(p.kv_heads, p.columns, p.value_size);
  p.out_steps = dense_steps(p.heads, p.rows, p.value_size);
  p.scale = static_cast<float>(call.attributes.real("scale"));
  p.softcap = static_cast<float>(call.attributes.real("softcap"));
  p.empty_is_nan = call.attributes.text("empty_rows") == "nan";
  if (call.has_operand(kMask)) {
    const Shape mask = shape_of(call.operand(kMask));
    const std::int64_t mask_columns = mask.empty() ? 1 : mask.back();  // may exceed this rank's keys
    const Shape steps = strides_over(mask, {p.batch, p.heads, p.rows, mask_columns});
    p.mask_dtype = call.operand(kMask).dtype;
    p.mask_steps = {steps[0], steps[1], steps[2]};
    p.mask_column_step = steps[3];
  }
  return p;
}

FlatProblem flat_problem_of(const OpCall& flat_call) {
  const FlatHeads flat = flat_heads(flat_call);
  FlatProblem result = {heads_first(flat_call), {}, {}};
  AttentionProblem& p = result.problem = problem_of(result.call);
  const auto steps = [](const Type& rows, std::int64_t size) {
    const std::int64_t width = rows.dims[2].constant();
    return Steps{.batch = rows.dims[1].constant() * width, .head = size, .row = width};
  };
  p.q_steps = steps(flat_call.operand(kQ), flat.size);
  p.k_steps = steps(flat_call.operand(kK), flat.size);
  p.v_steps = steps(flat_call.operand(kV), flat.value_size);
  p.out_steps = steps(flat_call.results[0], flat.value_size);
  for (const std::size_t i : {kQ, kK, kV}) result.begins[i] = bytes(p.dtype, flat.begins[i]);
  return result;
}

std::vector<std::int64_t> lengths_of(const OpCall& call, std::size_t operand, std::span<const std::byte* const> operands) {
  std::vector<std::int64_t> lengths;
  if (!call.has_operand(operand)) return lengths;
  const Type& type = call.operand(operand);
  for (std::int64_t i = 0; i < type.dims[0].constant(); ++i) lengths.push_back(load_int(type.dtype, operands[operand], i));
  return lengths;
}

std::int64_t diagonal_of(const OpCall& call, std::span<const std::byte* const> operands, std::int64_t rows, std::int64_t columns) {
  const std::string& causal = call.attributes.text("causal");
  if (causal == "upper_left") return 0;
  if (causal == "lower_right") return columns - rows;
  if (causal == "offset") return load_int(call.operand(kPast).dtype, operands[kPast], 0);
  return AttentionProblem::kNoDiagonal;
}

}  // namespace tandem::attention
