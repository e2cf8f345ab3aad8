#include "kernels/nonfinite_rows.h"

#include <algorithm>
#include <cmath>

#include "kernels/small_shapes.h"
#include "ops/ops.h"

namespace tandem::test {
namespace {

using Attributes = std::vector<std::pair<std::string, AttributeValue>>;
using Ints = std::vector<std::int64_t>;

KernelCase of(std::string_view op, std::vector<std::optional<Tensor>> operands, Attributes attributes = {}) {
  return {.op = std::string(op), .attributes = std::move(attributes), .operands = std::move(operands), .threads = 2};
}

// Every function of elements, and choosing and converting. A stretch of one operand lies beside numbers of the other.
void add_pointwise(std::vector<NonFiniteRow>& rows) {
  const Tensor x = random_tensor(DType::f32, {6, 200}, 1), y = random_tensor(DType::f32, {200}, 2);
  const auto add = [&](std::string_view name, const char* group, KernelCase row, double roundings) {
    rows.push_back({std::string(name), group, "cuda_pointwise", std::move(row), roundings});
  };
  for (const OpDef* op : all_ops().all()) {
    const bool logic = op->name == "And" || op->name == "Or" || op->name == "Xor" || op->name == "Not";
    if (!op->pointwise || logic || op->name == "Pointwise" || op->name == "Cast") continue;
    if (op->max_operands == 1) add(op->name, "functions_of_one", of(op->name, {x}), 4);
    if (op->max_operands == 2) add(op->name, "functions_of_two", of(op->name, {x, y}), 4);
  }
  add("Where", "functions_of_two", of("Where", {Tensor::of_ints(DType::boolean, {6, 1}, Ints{1, 0, 0, 1, 0, 1}), x, y}), 0);
  add("Program", "functions_of_two", of("Pointwise", {x, y}, {{"program", std::string("t0=Max(a0,a1);t1=Gelu(t0);Min(t1,a0)")}}), 4);
  for (const DType to : {DType::f16, DType::bf16, DType::i32, DType::i64, DType::u8, DType::i8, DType::boolean, DType::f8e4m3})
    add(to_string(to), "casts", of("Cast", {x}, {{"to", to}}), 0);
}

// All kinds of reductions, of which a small shape has sums; and what is not zero among zeros.
void add_reductions(std::vector<NonFiniteRow>& rows) {
  for (const std::string kind : {"max", "min", "mean", "l1", "l2", "sum_square", "log_sum_exp"})
    for (const std::int64_t axis : {0, 1})
      rows.push_back({kind, "cuda_reduce", "cuda_reduce",
                      of("Reduce", {random_tensor(DType::f32, {40, 50}, 3)}, {{"kind", kind}, {"axes", Ints{axis}}}), 4});
  for (const std::int64_t axis : {0, 1}) {
    const Tensor x = random_tensor(DType::f16, {40, 50}, 4);
    rows.push_back({"largest", "cuda_arg_max", "cuda_arg_max", of("ArgMax", {x}, {{"axis", axis}}), 0});
    rows.push_back({"smallest", "cuda_arg_min", "cuda_arg_min", of("ArgMin", {x}, {{"axis", axis}}), 0});
    rows.push_back({"smallest", "cuda_top_k", "cuda_top_k", of("TopK", {x}, {{"axis", axis}, {"k", Dim(30)}, {"largest", false}}), 0});
  }
  rows.push_back(
      {"zeros", "cuda_nonzero", "cuda_nonzero", of("NonZero", {Tensor(DType::f16, {3, 40, 70})}, {{"symbol", std::string("n")}}), 0});
}

// Attention over as many rows as cuDNN takes, also where later keys are hidden: what is not seen must not be felt.
void add_attention(std::vector<NonFiniteRow>& rows) {
  for (const std::string causal : {"none", "upper_left"}) {
    const auto heads = [](std::int64_t count, unsigned seed) { return random_tensor(DType::f16, {1, count, 72, 64}, seed); };
    const std::string hidden = causal == "none" ? "" : "_causal";
    rows.push_back({causal, "cudnn_attention" + hidden, "cudnn_attention",
                    of("Attention", {heads(2, 1), heads(1, 2), heads(1, 3)}, {{"scale", 0.125}, {"causal", causal}})});
    const Tensor packed = random_tensor(DType::f16, {1, 72, 2 * 3 * 64}, 4);
    rows.push_back({causal, "cudnn_flat_attention" + hidden, "cudnn_flat_attention",
                    of("FlatAttention", {packed, packed, packed},
                       {{"heads", std::int64_t{2}},
                        {"kv_heads", std::int64_t{2}},
                        {"size", std::int64_t{64}},
                        {"value_size", std::int64_t{64}},
                        {"begins", Ints{0, 2 * 64, 4 * 64}},
                        {"scale", 0.125},
                        {"causal", causal}})});
  }
}

}  // namespace

std::vector<NonFiniteRow> nonfinite_rows() {
  std::vector<NonFiniteRow> rows;
  for (const SmallShape& small : small_shapes())
    rows.push_back({small.name, std::string(small.kernel), small.kernel, small.row, small.roundings});
  add_pointwise(rows);
  add_reductions(rows);
  add_attention(rows);
  std::erase_if(rows, [](const NonFiniteRow& row) { return operands_for(row.row, NAN).empty(); });
  return rows;
}

std::vector<std::string> nonfinite_groups() {
  std::vector<std::string> groups;
  for (const NonFiniteRow& row : nonfinite_rows())
    if (std::ranges::find(groups, row.group) == groups.end()) groups.push_back(row.group);
  return groups;
}

std::vector<std::size_t> operands_for(const KernelCase& row, double special) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < row.operands.size(); ++i) {
    if (!row.operands[i] || !is_float(row.operands[i]->dtype())) continue;
    const double held = Tensor::of(row.operands[i]->dtype(), {1}, std::vector{special}).at(0);
    if (held == special || (std::isnan(held) && std::isnan(special))) found.push_back(i);
  }
  return found;
}

KernelCase spiked(const KernelCase& row, std::size_t operand, double special) {
  KernelCase c = row;
  const Tensor& before = *row.operands[operand];
  std::vector<double> values = before.to_doubles();
  if (values.empty()) return c;
  values.front() = values.back() = special;
  const auto line = static_cast<std::size_t>(before.shape().empty() ? 1 : before.shape().back());
  const std::size_t stretch = (32 + line - 1) / line * line, lines = values.size() / stretch;  // whole rows
  if (lines >= 3) std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(lines / 2 * stretch), stretch, special);
  const Tensor after = Tensor::of(before.dtype(), before.shape(), values);
  // What was one value stays one.
  for (auto& other : c.operands)
    if (other && other->data() == before.data()) other = after;
  return c;
}

}  // namespace tandem::test
