// How a formula of one or two elements becomes an OpDef.
//
// A formula is a captureless lambda used as a template argument: on doubles, or a generic one (Number auto) that also runs
// on std::int64_t and then serves integers and booleans exactly. A formula with attributes is a lambda that takes Attributes
// and returns the lambda of the elements.
#pragma once

#include <type_traits>

#include "core/check.h"
#include "core/tensor.h"
#include "graph/builder.h"
#include "ops/shape_rules.h"

namespace tandem::pointwise {

template <typename T>
concept Number = std::is_arithmetic_v<T>;

// Which dtypes an op takes.
struct Takes {
  bool (*allowed)(DType);
  std::string_view expected;
};
inline constexpr Takes kFloats{is_float, "a float type"};
inline constexpr Takes kNumbers{is_number, "a number type"};
inline constexpr Takes kBooleans{is_boolean, "bool"};
inline constexpr Takes kAnything{[](DType) { return true; }, "any type"};

template <auto F>
auto formula(const Attributes& attributes) {
  if constexpr (std::is_invocable_v<decltype(F), const Attributes&>) return F(attributes);
  else return F;
}

// A formula that gives integers for integers runs on them without passing through double.
template <typename F>
void apply(const F& f, const Tensor& x, Tensor& out) {
  std::byte* data = out.mutable_data();
  if constexpr (std::is_same_v<std::invoke_result_t<F, std::int64_t>, std::int64_t>)
    if (!is_float(x.dtype())) {
      for (std::int64_t i = 0; i < x.count(); ++i) store_int(out.dtype(), data, i, f(x.int_at(i)));
      return;
    }
  for (std::int64_t i = 0; i < x.count(); ++i) store_element(out.dtype(), data, i, f(x.at(i)));
}

template <auto F>
std::vector<Tensor> evaluate_unary(const OpCall& call, std::span<const Tensor> in) {
  Tensor out(call.results.at(0).dtype, in[0].shape());
  apply(formula<F>(call.attributes), in[0], out);
  return {out};
}

template <auto F>
std::vector<Tensor> evaluate_binary(const OpCall& call, std::span<const Tensor> in) {
  const Shape shape = shape_of(call.results.at(0));
  Tensor out(call.results[0].dtype, shape);
  std::byte* data = out.mutable_data();
  const auto f = formula<F>(call.attributes);
  const bool floats = is_float(in[0].dtype());
  for_each_offset<2>(shape, {strides_over(in[0].shape(), shape), strides_over(in[1].shape(), shape)}, [&](std::int64_t i, const auto& at) {
    if (floats) store_element(out.dtype(), data, i, f(in[0].at(at[0]), in[1].at(at[1])));
    else store_int(out.dtype(), data, i, f(in[0].int_at(at[0]), in[1].int_at(at[1])));
  });
  return {out};
}

// Adds a binary op, recording the extents that broadcasting assumes to be equal.
Value* add_broadcast(GraphBuilder& builder, std::string_view op, Value* a, Value* b, const NamedAttributes& attributes = {});
// Import rules for an op whose ONNX name and operands are ours.
std::vector<Value*> import_unary(const ForeignNode& node, GraphBuilder& builder);
std::vector<Value*> import_binary(const ForeignNode& node, GraphBuilder& builder);
// Folds any number of inputs from the left: Max, Min, Sum.
std::vector<Value*> import_chain(std::string_view op, const ForeignNode& node, GraphBuilder& builder);

ShardingRule linear_unary_rule(const OpCall& call);

}  // namespace tandem::pointwise
