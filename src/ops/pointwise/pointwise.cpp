// The op that fused chains of pointwise ops become.
#include <array>

#include "core/check.h"
#include "core/tensor.h"
#include "ops/ops.h"
#include "ops/pointwise/program.h"
#include "ops/shape_rules.h"

namespace tandem::ops {
namespace {

using namespace pointwise;

std::vector<DType> operand_types(const OpCall& call) {
  std::vector<DType> types;
  for (std::size_t i = 0; i < call.operands.size(); ++i) types.push_back(call.operand(i).dtype);
  return types;
}

std::vector<Type> infer(const OpCall& call) {
  const Program program = Program::parse(call.attributes.text("program"));
  std::vector<Dim> dims = call.operand(0).dims;
  for (std::size_t i = 1; i < call.operands.size(); ++i) dims = broadcast_dims(dims, call.operand(i).dims).dims;
  return {{program.types(operand_types(call)).back(), dims}};
}

// A value that is an integer or a bool in `ints`, else in `reals`.
struct Element {
  double real = 0;
  std::int64_t whole = 0;
};

Element cast(const Element& x, DType from, DType to) {
  std::array<std::byte, 8> memory{};
  if (is_float(from)) store_element(to, memory.data(), 0, x.real);
  else if (is_float(to)) store_element(to, memory.data(), 0, static_cast<double>(x.whole));
  else store_int(to, memory.data(), 0, x.whole);
  if (is_float(to)) return {.real = load_element(to, memory.data(), 0)};
  return {.whole = load_int(to, memory.data(), 0)};
}

// Runs one statement. Narrow integers wrap after every statement, as they would in memory.
Element step(const Statement& s, std::span<const Element> x, DType value, DType result) {
  std::array<double, 3> reals{};
  std::array<std::int64_t, 3> ints{};
  const bool floats = is_float(value);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const bool condition = s.function == Function::Where && i == 0;
    reals[i] = condition ? static_cast<double>(x[i].whole) : x[i].real;
    ints[i] = x[i].whole;
  }
  if (!floats) return cast({.whole = apply(s.function, {ints.data(), x.size()})}, DType::i64, result);
  const double y = apply(s.function, {reals.data(), x.size()});
  if (is_float(result)) return {.real = y};
  return {.whole = y != 0};
}

std::vector<Tensor> evaluate(const OpCall& call, std::span<const Tensor> in) {
  const Program program = Program::parse(call.attributes.text("program"));
  const std::vector<DType> operands = operand_types(call), types = program.types(operands);
  const Shape shape = shape_of(call.results.at(0));
  Tensor out(call.results[0].dtype, shape);
  std::vector<Shape> strides;
  for (const Tensor& t : in) strides.push_back(strides_over(t.shape(), shape));
  const Shape own = row_major_strides(shape);
  std::vector<Element> temporaries(types.size());
  for (std::int64_t i = 0; i < out.count(); ++i) {
    for (std::size_t n = 0; n < types.size(); ++n) {
      const Statement& s = program.statements[n];
      const DType value = program.number_type(n, operands, types);
      std::array<Element, 3> x{};
      for (std::size_t a = 0; a < s.arguments.size(); ++a) {
        const Argument& argument = s.arguments[a];
        const auto index = static_cast<std::size_t>(argument.index);
        if (argument.kind == Argument::Kind::number)
          x[a] = {argument.number, static_cast<std::int64_t>(is_float(value) ? 0 : argument.number)};
        if (argument.kind == Argument::Kind::temporary) x[a] = temporaries[index];
        if (argument.kind != Argument::Kind::operand) continue;
        std::int64_t at = 0;
        for (std::size_t d = 0; d < shape.size(); ++d) at += i / own[d] % shape[d] * strides[index][d];
        if (is_float(operands[index])) x[a] = {.real = in[index].at(at)};
        else x[a] = {.whole = in[index].int_at(at)};
      }
      if (s.function == Function::Cast) temporaries[n] = cast(x[0], value, s.to);
      else temporaries[n] = step(s, {x.data(), s.arguments.size()}, value, types[n]);
    }
    if (is_float(out.dtype())) store_element(out.dtype(), out.mutable_data(), i, temporaries.back().real);
    else store_int(out.dtype(), out.mutable_data(), i, temporaries.back().whole);
  }
  return {out};
}

}  // namespace

const OpDef Pointwise = {
    .name = "Pointwise",
    .doc = "A chain of element-wise functions of broadcast operands, such as t0=Add(a0,a1);Gelu(t0).",
    .fields = {{"program",
                FieldKind::text,
                std::string("Abs(a0)"),
                {},
                "statements separated by ';', operands a0, a1, …; src/ops/pointwise/program.h"}},
    .operands = {{"operands", "a0, a1, …"}},
    .min_operands = 1,
    .max_operands = -1,
    .infer = infer,
    .rule = pointwise_rule,
    .evaluate = evaluate,
    .pointwise = true,
};

}  // namespace tandem::ops
