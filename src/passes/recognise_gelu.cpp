// recognise_gelu: x/2·(1 + erf(x/√2)) and x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))), factors in any order.
#include <cmath>

#include "passes/match.h"
#include "passes/passes.h"

namespace tandem::passes {
namespace {

constexpr double kCubic = 0.044715;

// `value` is number·x.
bool is_scaled(Value* value, const Value* x, double number) {
  if (Node* div = made_by(value, "Div"))
    if (div->operand(0) == x) return is_about(number_beside(div->operand(1), x), 1 / number);
  const Product p = product_of(value);
  return p.factors.size() == 1 && p.factors[0] == x && is_about(p.number, number);
}

// The power of x in `value`, or 0 if it is none; Pow counts by its exponent.
int power_of(Value* value, const Value* x, int depth = 0) {
  if (value == x) return 1;
  if (Node* pow = made_by(value, "Pow"); pow && pow->operand(0) == x) {
    const auto exponent = number_of(pow->operand(1));
    return exponent && *exponent > 0 && *exponent < 4 && *exponent == std::floor(*exponent) ? static_cast<int>(*exponent) : 0;
  }
  Node* mul = made_by(value, "Mul");
  if (!mul || depth > 3) return 0;
  const int a = power_of(mul->operand(0), x, depth + 1), b = power_of(mul->operand(1), x, depth + 1);
  return a && b ? a + b : 0;
}

bool is_power(Value* value, const Value* x, int power, double number) {
  const Product p = product_of(value);
  int sum = 0;
  for (Value* f : p.factors) {
    const int own = power_of(f, x);
    if (!own) return false;
    sum += own;
  }
  return sum == power && is_about(p.number, number);
}

// √(2/π)·(x + c·x³), also written √(2/π)·x·(1 + c·x²).
bool is_tanh_argument(Value* value, const Value* x) {
  const Product p = product_of(value);
  if (!is_about(p.number, std::sqrt(2 / M_PI))) return false;
  if (p.factors.size() == 1) {
    Node* add = made_by(p.factors[0], "Add");
    if (!add) return false;
    const auto sums = [&](std::size_t i) { return add->operand(i) == x && is_power(add->operand(1 - i), x, 3, kCubic); };
    return sums(0) || sums(1);
  }
  if (p.factors.size() != 2) return false;
  const std::size_t other = p.factors[0] == x ? 1 : 0;
  if (p.factors[1 - other] != x) return false;
  Node* add = made_by(p.factors[other], "Add");
  const auto plus = with_number(add);
  return plus && plus->number == 1 && is_power(plus->other, x, 2, kCubic);
}

// "none" or "tanh" if `gate` is the 1 + … of x, else null.
const char* gate_kind(Value* gate, const Value* x) {
  Node* add = made_by(gate, "Add");
  const auto plus = with_number(add);
  if (!plus || plus->number != 1) return nullptr;
  if (Node* erf = made_by(plus->other, "Erf")) return is_scaled(erf->operand(0), x, std::sqrt(0.5)) ? "none" : nullptr;
  if (Node* tanh = made_by(plus->other, "Tanh")) return is_tanh_argument(tanh->operand(0), x) ? "tanh" : nullptr;
  return nullptr;
}

bool rewrite(Node& node) {
  if (!node.is("Mul") || !is_float(node.result()->type.dtype)) return false;
  const Product p = product_of(node.result());
  if (p.factors.size() != 2 || !is_about(p.number, 0.5)) return false;
  for (std::size_t i : {0u, 1u}) {
    Value *x = p.factors[i], *gate = p.factors[1 - i];
    const char* kind = gate_kind(gate, x);
    if (!kind || x->type != node.result()->type) continue;
    node.graph().replace_uses(node.result(), builder_before(node).add("Gelu", {x}, {{"approximate", std::string(kind)}}));
    return true;
  }
  return false;
}

}  // namespace

bool recognise_gelu(Module& module, const PassOptions&) { return for_each_node(module, rewrite); }

}  // namespace tandem::passes
