// What passes ask of a graph: who made a value, which number it is, who else uses it.
#pragma once

#include <initializer_list>
#include <optional>
#include <string_view>
#include <vector>

#include "graph/builder.h"
#include "graph/graph.h"

namespace tandem::passes {

// Calls `rewrite` for every program of the module and every region in it, innermost first; whether any changed.
bool for_each_graph(Module& module, bool (*rewrite)(Graph&));
// Calls `rewrite` for every node, in order. It may add nodes before the one it is given, and replace uses, but not erase;
// what is left unused is erased afterwards.
bool for_each_node(Module& module, bool (*rewrite)(Node&));

// The node that made a value, if it is this op, else null. Null values are allowed.
Node* made_by(const Value* value, std::string_view op);
// A node uses it, once, and it is no output.
bool has_one_use(const Value* value);
// The only node that uses it, if that is this op, else null.
Node* only_user(const Value* value, std::string_view op);

// A product: MatMul, or DequantMatMul or QuantMatMul, whose first operands are those of MatMul.
bool is_product(const Node& node);
// The product that made a value, else null.
Node* product_behind(const Value* value);
// Operands whose last dimension is the product's columns, but for the residual: its matrix, bias, scales.
std::vector<std::size_t> column_operands(const Node& product);
// The matrix, the bias and the scales, where given, are weights, and the matrix has two dimensions.
bool multiplies_weights(const Node& product);

// Products of the same form whose columns may lie beside each other in one product: what is not put beside each other is the same.
bool joins_columns(const Node& a, const Node& b);

// The number that all elements of a known value are (at most 64 elements looked at).
std::optional<double> number_of(const Value* value);
// The same for a value that leaves the shape of `beside` as it is when broadcast against it.
std::optional<double> number_beside(const Value* value, const Value* beside);
bool is_about(std::optional<double> value, double wanted, double relative = 1e-3);

// The operands of a two-operand node in the order (number, other), if one is a number that leaves the other's shape.
struct WithNumber {
  double number;
  Value* other;
};
std::optional<WithNumber> with_number(const Node* node);

// A product taken apart: Mul nodes with one use, Div by a number, Neg; depth is bounded.
struct Product {
  double number = 1;
  std::vector<Value*> factors;
};
Product product_of(Value* value);

// The last dimension of `value`, or nothing for a scalar.
std::optional<Dim> last_dim(const Value* value);
std::vector<Dim> leading_dims(const Value* value);
// All operands and attributes of a node, in the form that builders take.
NamedAttributes named(const Attributes& attributes);
// A builder that adds before `node`, in its name.
GraphBuilder builder_before(Node& node);
Value* reshape(GraphBuilder& builder, Value* value, std::vector<Dim> shape);
// Elements begin … end of the last dimension.
Value* slice_last(GraphBuilder& builder, Value* value, const Dim& begin, const Dim& end);
bool has_op(const Module& module, std::string_view op);

}  // namespace tandem::passes
