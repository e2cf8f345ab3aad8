// Calls, evaluation, import and rules of single ops, for the tests of this folder.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/check.h"
#include "core/tensor.h"
#include "graph/builder.h"
#include "graph/graph.h"
#include "ops/ops.h"

namespace tandem::testing {

// sin(0.7·i + seed): values without symmetry that other programs can repeat.
Tensor waves(double seed, Shape shape, DType dtype = DType::f32);
Tensor numbers(Shape shape, std::vector<double> values, DType dtype = DType::f32);
Tensor ints(Shape shape, std::vector<std::int64_t> values, DType dtype = DType::i64);

// "B,S,4" as dims.
Type type_of(DType dtype, const std::string& dims);
// A call with inferred results.
OpCall call_of(const OpDef& op, std::vector<std::optional<Type>> operands, const NamedAttributes& attributes = {});
std::vector<Type> infer(const OpDef& op, std::vector<std::optional<Type>> operands, const NamedAttributes& attributes = {});
// Evaluates and checks that the results have the inferred types.
std::vector<Tensor> evaluate_all(const OpDef& op, std::vector<std::optional<Tensor>> operands, const NamedAttributes& attributes = {});
Tensor evaluate(const OpDef& op, std::vector<std::optional<Tensor>> operands, const NamedAttributes& attributes = {});

// "a b, b c! -> a c": a letter per factor, 1 for a dimension without one, ! for whole, +sum after a contracted one.
std::string rule_text(const OpDef& op, std::vector<std::optional<Type>> operands, const NamedAttributes& attributes = {});

// Contents as Dims, written like "S,4"; "?" where they are unknown. Contents without a shape are vectors.
std::string folded(const OpDef& op, const std::vector<std::string>& contents, const NamedAttributes& attributes = {},
                   DType dtype = DType::i64);

void expect_near(const Tensor& actual, const std::vector<double>& expected, double tolerance = 2e-6);
// Runs f and expects an Error of this code whose text contains `part`.
void expect_error(ErrorCode code, const std::string& part, const std::function<void()>& f);

// A program made of one foreign node.
struct Imported {
  Module module{all_ops()};
  Graph& graph = module.add_graph("main");
  GraphBuilder builder{graph};
  ForeignNode node;
  std::map<std::string, Tensor> inputs;
  std::vector<Value*> results;

  Imported(std::string op_type, int opset) { node.op_type = std::move(op_type), node.opset = opset, node.outputs = {"y"}; }
  // Inputs of the node: of symbolic extents, with values, constant, absent.
  Imported& input(Type type);
  Imported& input(Tensor value);
  Imported& constant(Tensor value);
  Imported& absent();
  Imported& with(const std::string& name, ForeignAttribute value);
  // Imports; the ops that were added, in order, without constants.
  std::vector<std::string> run_rule();
  const Node* find(std::string_view op) const;
  // Imports if that was not done, and evaluates a result.
  Tensor evaluate(std::size_t result = 0);
};

}  // namespace tandem::testing
