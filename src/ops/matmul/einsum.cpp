#include "ops/matmul/einsum.h"

#include <algorithm>
#include <map>

#include "core/check.h"

namespace tandem {
namespace {

using Letters = std::string;

bool has(const Letters& letters, char letter) { return letters.find(letter) != Letters::npos; }

Letters only(const Letters& from, auto keep) {
  Letters kept;
  std::ranges::copy_if(from, std::back_inserter(kept), keep);
  return kept;
}

struct Equation {
  std::vector<Letters> operands;
  Letters result;
};

Equation read(std::string text, std::size_t operands) {
  std::erase(text, ' ');
  const std::size_t arrow = text.find("->");
  Equation equation{.operands = {Letters()}};
  for (const char c : text.substr(0, arrow)) {
    if (c == ',') equation.operands.emplace_back();
    else equation.operands.back().push_back(c);
  }
  if (equation.operands.size() != operands) fail(ErrorCode::invalid_model, "equation '{}' is not of {} operands", text, operands);
  Letters all;
  for (const Letters& letters : equation.operands) {
    for (const char c : letters) {
      if (!std::isalpha(static_cast<unsigned char>(c))) fail(ErrorCode::unsupported, "equation '{}': only letters are supported", text);
      if (std::ranges::count(letters, c) > 1) fail(ErrorCode::unsupported, "equation '{}': diagonals are not supported", text);
    }
    all += letters;
  }
  std::ranges::sort(all);
  equation.result =
      arrow == std::string::npos ? only(all, [&](char c) { return std::ranges::count(all, c) == 1; }) : text.substr(arrow + 2);
  for (const char c : equation.result)
    if (!has(all, c) || std::ranges::count(equation.result, c) > 1) fail(ErrorCode::unsupported, "equation '{}' is not supported", text);
  return equation;
}

// A value and the letters of its dimensions.
struct Named {
  Value* value;
  Letters letters;
};

Named transposed(GraphBuilder& b, const Named& x, const Letters& to) {
  if (x.letters == to) return x;
  std::vector<std::int64_t> permutation;
  for (const char c : to) permutation.push_back(static_cast<std::int64_t>(x.letters.find(c)));
  return {b.add("Transpose", {x.value}, {{"permutation", permutation}}), to};
}

// Letters that nothing else has are summed.
Named summed(GraphBuilder& b, const Named& x, const Letters& wanted) {
  std::vector<std::int64_t> axes;
  for (std::size_t i = 0; i < x.letters.size(); ++i)
    if (!has(wanted, x.letters[i])) axes.push_back(static_cast<std::int64_t>(i));
  if (axes.empty()) return x;
  Value* y = b.add("Reduce", {x.value}, {{"kind", std::string("sum")}, {"axes", axes}, {"keepdims", false}});
  return {y, only(x.letters, [&](char c) { return has(wanted, c); })};
}

std::vector<Dim> dims_of(const std::map<char, Dim>& extents, const Letters& letters) {
  std::vector<Dim> dims;
  for (const char c : letters) dims.push_back(extents.at(c));
  return dims;
}

Value* reshape(GraphBuilder& b, Value* x, const std::vector<Dim>& dims) {
  return x->type.dims == dims ? x : b.add("Reshape", {x}, {{"shape", dims}});
}

// [shared, rows, summed] times [shared, summed, columns].
Named multiplied(GraphBuilder& b, const Named& x, const Named& y, const Letters& result) {
  std::map<char, Dim> extents;
  for (const Named* operand : {&x, &y})
    for (std::size_t i = 0; i < operand->letters.size(); ++i) {
      const Dim& extent = operand->value->type.dims[i];
      const auto [found, fresh] = extents.emplace(operand->letters[i], extent);
      if (!fresh) b.require_equal(found->second, extent);
    }
  const Letters shared = only(x.letters, [&](char c) { return has(y.letters, c) && has(result, c); });
  const Letters inner = only(x.letters, [&](char c) { return has(y.letters, c) && !has(result, c); });
  const Letters rows = only(x.letters, [&](char c) { return !has(y.letters, c); }),
                columns = only(y.letters, [&](char c) { return !has(x.letters, c); });
  const std::vector<Dim> batch = dims_of(extents, shared);
  const Dim m = product(dims_of(extents, rows)), k = product(dims_of(extents, inner)), n = product(dims_of(extents, columns));
  const auto matrix = [&](const Named& operand, const Letters& order, const Dim& a, const Dim& c) {
    std::vector<Dim> dims = batch;
    dims.insert(dims.end(), {a, c});
    return reshape(b, transposed(b, operand, order).value, dims);
  };
  Value* z = b.add("MatMul", {matrix(x, shared + rows + inner, m, k), matrix(y, shared + inner + columns, k, n)});
  const Letters made = shared + rows + columns;
  return transposed(b, {reshape(b, z, dims_of(extents, made)), made}, result);
}

}  // namespace

std::vector<Value*> import_einsum(const ForeignNode& node, GraphBuilder& builder) {
  const std::size_t count = node.inputs.size();
  if (count < 1 || count > 2) fail(ErrorCode::unsupported, "{} operands are not supported", count);
  const Equation equation = read(node.text("equation", ""), count);
  std::vector<Named> operands;
  for (std::size_t i = 0; i < count; ++i) {
    const Named x{node.required(i), equation.operands[i]};
    if (x.value->type.rank() != static_cast<int>(x.letters.size()))
      fail(ErrorCode::invalid_model, "'{}' names the dimensions of {}", x.letters, x.value->type.to_string());
    operands.push_back(summed(builder, x, equation.result + (count == 2 ? equation.operands[1 - i] : "")));
  }
  if (count == 1) return {transposed(builder, operands[0], equation.result).value};
  return {multiplied(builder, operands[0], operands[1], equation.result).value};
}

}  // namespace tandem
