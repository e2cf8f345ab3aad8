// Pointwise programs: chains of element-wise functions as text, the attribute of the op `Pointwise`.
//
//   t0=Mul(a0,0.5);t1=Tanh(t0);Where(a1,t1,a0)
//
// Statements are separated by ';'. Statement i defines t<i>; the last one has no name and is the result. An argument is
// an operand a<i>, an earlier t<i>, or a number. A number has the dtype of the arguments beside it, and stands where
// that is a float type or it is whole. Cast has the dtype as its second argument: Cast(t0,f16). Functions and their
// arities are in functions.def. Operands broadcast like numpy's. Arithmetic on f16 and bf16 is done in f32 (or more) and
// rounded once, at the end and at casts.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/attribute.h"
#include "tandem/types.h"

namespace tandem::pointwise {

enum class Function : std::uint8_t {
#define TANDEM_FUNCTION(name, arguments, kind) name,
#include "ops/pointwise/functions.def"
};

std::string_view to_string(Function function);
int arity(Function function);

struct Argument {
  enum class Kind : std::uint8_t { operand, temporary, number };
  Kind kind = Kind::operand;
  int index = 0;  // of the operand or temporary
  double number = 0;
  static Argument operand(int index) { return {Kind::operand, index, 0}; }
  static Argument temporary(int index) { return {Kind::temporary, index, 0}; }
  static Argument literal(double number) { return {Kind::number, 0, number}; }
  bool operator==(const Argument&) const = default;
};

struct Statement {
  Function function = Function::Add;
  std::vector<Argument> arguments;
  DType to = DType::f32;  // of Cast
  bool operator==(const Statement&) const = default;
};

struct Program {
  std::vector<Statement> statements;

  // Throws Error(invalid_model) naming the statement that is wrong.
  static Program parse(std::string_view text);
  std::string to_string() const;
  // The dtype of every statement given those of the operands; throws Error(invalid_model) where they do not fit.
  std::vector<DType> types(std::span<const DType> operands) const;
  // The dtype a number in statement i stands for.
  DType number_type(std::size_t statement, std::span<const DType> operands, std::span<const DType> types) const;
  int operand_count() const;
  bool operator==(const Program&) const = default;
};

// The statement that does what a node of the named op does, its arguments a0, a1, … followed by numbers for its
// attributes; nothing if the op has no function here.
std::optional<Statement> statement_for(std::string_view op, const Attributes& attributes);

// One function on one element. Bools are 0 and 1. The integer form is for statements whose arguments are integers.
double apply(Function function, std::span<const double> x);
std::int64_t apply(Function function, std::span<const std::int64_t> x);

}  // namespace tandem::pointwise
