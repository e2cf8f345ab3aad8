#include "core/tensor.h"
#include "graph/graph.h"
#include "ops/matmul/einsum.h"
#include "ops/ops.h"
#include "ops/pointwise/define.h"
#include "ops/pointwise/scalar.h"
#include "ops/quantize/import.h"

namespace tandem::ops {
namespace {

enum Operand : std::size_t { kA, kB, kBias, kResidual };

std::vector<Dim> leading(const Type& type) { return {type.dims.begin(), type.dims.end() - 2}; }
const Dim& extent(const Type& type, int from_right) { return type.dims[type.dims.size() - static_cast<std::size_t>(from_right)]; }

std::vector<Type> infer(const OpCall& call) {
  const DType dtype = same_dtype(call);
  require_dtype(call, kA, is_number, "a number type");
  const Type &a = call.operand(kA), &b = call.operand(kB);
  if (a.rank() < 2 || b.rank() < 2) fail(ErrorCode::invalid_model, "operands {} and {} must be matrices", a.to_string(), b.to_string());
  if (!may_be_equal(extent(a, 1), extent(b, 2)))
    fail(ErrorCode::invalid_model, "cannot multiply {} by {}: {} columns meet {} rows", a.to_string(), b.to_string(),
         extent(a, 1).to_string(), extent(b, 2).to_string());
  std::vector<Dim> dims = broadcast_dims(leading(a), leading(b)).dims;
  dims.push_back(extent(a, 2));
  dims.push_back(extent(b, 1));
  if (call.has_operand(kBias)) {
    const Type& bias = require_rank(call, kBias, 1, 1);
    merge_equal(bias.dims[0], dims.back(), "bias and columns");
  }
  if (call.has_operand(kResidual)) {
    const Type& residual = call.operand(kResidual);
    if (residual.rank() != static_cast<int>(dims.size()))
      fail(ErrorCode::invalid_model, "the residual is {}, expected {}", residual.to_string(), to_string(dims));
    for (std::size_t i = 0; i < dims.size(); ++i) merge_equal(residual.dims[i], dims[i], "residual and result");
  }
  return {{dtype, dims}};
}

ShardingRule rule(const OpCall& call) {
  ShardingRule rule = rule_from_formula("... m k, ... k n, n, ... m n -> ... m n", call);
  const bool pure = !call.has_operand(kBias) && !call.has_operand(kResidual) && call.attributes.text("activation") == "none";
  rule.linear = {pure, pure, false, false};
  return rule;
}

// Row-major offsets of the matrices of one operand, in the order of the result's leading indices.
std::vector<std::int64_t> matrix_offsets(const Shape& operand, const Shape& result) {
  const Shape own(operand.begin(), operand.end() - 2), batch(result.begin(), result.end() - 2);
  const std::int64_t matrix = operand[operand.size() - 2] * operand.back();
  std::vector<std::int64_t> offsets;
  for_each_offset<1>(batch, {strides_over(own, batch)}, [&](std::int64_t, const auto& at) { offsets.push_back(at[0] * matrix); });
  return offsets;
}

template <typename T>
T load(const Tensor& t, std::int64_t i) {
  if constexpr (std::is_same_v<T, double>) return t.at(i);
  else return t.int_at(i);
}

template <typename T>
Tensor product_of(const OpCall& call, std::span<const Tensor> in) {
  const Tensor &a = in[kA], &b = in[kB];
  const Shape shape = shape_of(call.results.at(0));
  const std::int64_t m = shape[shape.size() - 2], n = shape.back(), k = a.shape().back();
  const auto a_at = matrix_offsets(a.shape(), shape), b_at = matrix_offsets(b.shape(), shape);
  const auto activate = scalar::activation(call.attributes.text("activation"));
  Tensor out(a.dtype(), shape);
  std::byte* data = out.mutable_data();
  for (std::int64_t i = 0; i < out.count(); ++i) {
    const std::int64_t batch = i / (m * n), row = i / n % m, column = i % n;
    const std::int64_t x = a_at[static_cast<std::size_t>(batch)] + row * k, y = b_at[static_cast<std::size_t>(batch)] + column;
    T sum = 0;
    for (std::int64_t j = 0; j < k; ++j) sum = scalar::plus(sum, scalar::times(load<T>(a, x + j), load<T>(b, y + j * n)));
    if (call.has_operand(kBias)) sum = scalar::plus(sum, load<T>(in[kBias], column));
    if constexpr (std::is_same_v<T, double>) sum = activate(sum);
    if (call.has_operand(kResidual)) sum = scalar::plus(sum, load<T>(in[kResidual], i));
    if constexpr (std::is_same_v<T, double>) store_element(out.dtype(), data, i, sum);
    else store_int(out.dtype(), data, i, sum);
  }
  return out;
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  return {is_float(in[kA].dtype()) ? product_of<double>(call, in) : product_of<std::int64_t>(call, in)};
}

Value* reshape(GraphBuilder& builder, Value* x, std::vector<Dim> dims) { return builder.add("Reshape", {x}, {{"shape", std::move(dims)}}); }

Value* multiply(GraphBuilder& builder, Value* a, Value* b) {
  builder.require_equal(extent(a->type, 1), extent(b->type, 2));
  for (const auto& [x, y] : broadcast_dims(leading(a->type), leading(b->type)).equal) builder.require_equal(x, y);
  return builder.add("MatMul", {a, b});
}

// numpy's product also takes vectors: a row on the left, a column on the right.
std::vector<Value*> import_matmul(const ForeignNode& node, GraphBuilder& builder) {
  Value *a = node.required(0), *b = node.required(1);
  const bool row = a->type.rank() == 1, column = b->type.rank() == 1;
  if (row) a = reshape(builder, a, {Dim(1), a->type.dims[0]});
  if (column) b = reshape(builder, b, {b->type.dims[0], Dim(1)});
  Value* y = multiply(builder, a, b);
  if (!row && !column) return {y};
  std::vector<Dim> dims = y->type.dims;
  if (column) dims.pop_back();
  if (row) dims.erase(dims.end() - (column ? 1 : 2));
  return {reshape(builder, y, dims)};
}

Value* scaled(GraphBuilder& builder, Value* x, double factor) {
  return factor == 1 ? x : builder.add("Mul", {x, builder.scalar(x->type.dtype, factor)});
}

// y = alpha·A'·B' + beta·C. A transposed weight becomes part of its recipe later.
std::vector<Value*> import_gemm(const ForeignNode& node, GraphBuilder& builder) {
  Value *a = node.required(0), *b = node.required(1), *c = node.input(2);
  if (a->type.rank() != 2 || b->type.rank() != 2)
    fail(ErrorCode::invalid_model, "operands {} and {} must have rank 2", a->type.to_string(), b->type.to_string());
  const auto transposed = [&](Value* x, const char* flag) {
    return node.integer(flag, 0) == 0 ? x : builder.add("Transpose", {x}, {{"permutation", std::vector<std::int64_t>{1, 0}}});
  };
  Value* y = scaled(builder, multiply(builder, transposed(a, "transA"), transposed(b, "transB")), node.real("alpha", 1));
  const double beta = node.real("beta", 1);
  if (!c || beta == 0) return {y};
  return {pointwise::add_broadcast(builder, "Add", y, scaled(builder, c, beta))};
}

}  // namespace

const OpDef MatMul = {
    .name = "MatMul",
    .doc = "y[…,m,n] = activation(Σₖ a[…,m,k]·b[…,k,n] + bias[n]) + residual[…,m,n]; leading dimensions broadcast.",
    .fields = {{"activation",
                FieldKind::text,
                std::string("none"),
                {"none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"},
                "applied before the residual is added"}},
    .operands = {{"a"}, {"b"}, {"bias", "[n]"}, {"residual", "the result's shape"}},
    .min_operands = 2,
    .max_operands = 4,
    .infer = infer,
    .rule = rule,
    .evaluate = evaluate,
    .onnx = {{"MatMul", 1, import_matmul},
             {"Gemm", 7, import_gemm},
             {"MatMulInteger", 10, import_matmul_integer},
             {"Einsum", 12, import_einsum}},
};

}  // namespace tandem::ops
