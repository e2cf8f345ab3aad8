#include "support/cases.h"

#include <cmath>
#include <limits>
#include <stdexcept>

namespace tandem::testing {

Cases Cases::open(const std::filesystem::path& path, int rank) {
  const Safetensors file = Safetensors::open(path);
  Cases out;
  out.tolerance = std::stod(file.metadata().at("tolerance"));
  while (file.entries().lower_bound("case0.rank" + std::to_string(out.ranks) + ".") != file.entries().end() &&
         file.entries()
             .lower_bound("case0.rank" + std::to_string(out.ranks) + ".")
             ->first.starts_with("case0.rank" + std::to_string(out.ranks) + "."))
    ++out.ranks;
  const std::string inner = out.ranks > 1 ? "rank" + std::to_string(rank) + "." : "";
  for (int i = 0;; ++i) {
    Case c;
    const std::string prefix = "case" + std::to_string(i) + "." + inner;
    for (const auto& [name, entry] : file.entries()) {
      if (name.starts_with(prefix + "input.")) c.inputs[name.substr(prefix.size() + 6)] = file.tensor(name);
      if (name.starts_with(prefix + "output.")) c.outputs[name.substr(prefix.size() + 7)] = file.tensor(name);
    }
    if (c.inputs.empty()) return out;
    out.cases.push_back(std::move(c));
  }
}

SymbolValues bind(const Graph& graph, const Tensors& inputs) {
  SymbolValues symbols;
  const auto visit = [&](auto f) {
    for (const auto& input : graph.inputs()) {
      const Tensor& t = inputs.at(input->name());
      if (t.dtype() != input->type.dtype || t.shape().size() != input->type.dims.size()) throw std::runtime_error("input " + input->name());
      for (std::size_t i = 0; i < t.shape().size(); ++i) f(input->type.dims[i], t.shape()[i]);
    }
  };
  visit([&](const Dim& d, std::int64_t extent) {
    if (d.is_symbol()) symbols[d.to_string()] = extent;
  });
  visit([&](const Dim& d, std::int64_t extent) {
    if (d.evaluate(symbols) != extent) throw std::runtime_error(d.to_string() + " is not " + std::to_string(extent));
  });
  for (const Constraint& c : graph.constraints)
    if (c.left.evaluate(symbols) != c.right.evaluate(symbols))
      throw std::runtime_error(c.where + ": " + c.left.to_string() + " = " + c.right.to_string());
  return symbols;
}

double relative_error(const Tensor& got, const Tensor& expected) {
  constexpr double kWrong = std::numeric_limits<double>::infinity();
  if (got.dtype() != expected.dtype() || got.shape() != expected.shape()) return kWrong;
  double magnitude = 0, worst = 0;
  for (std::int64_t i = 0; i < expected.count(); ++i) {
    const double a = got.at(i), b = expected.at(i);
    if (std::isnan(a) != std::isnan(b)) return kWrong;
    if (std::isnan(a) || a == b) continue;
    magnitude = std::max(magnitude, std::fabs(b));
    worst = std::max(worst, std::fabs(a - b));
  }
  for (std::int64_t i = 0; i < expected.count(); ++i)
    if (std::isfinite(expected.at(i))) magnitude = std::max(magnitude, std::fabs(expected.at(i)));
  return worst == 0 ? 0 : magnitude == 0 ? kWrong : worst / magnitude;
}

}  // namespace tandem::testing
