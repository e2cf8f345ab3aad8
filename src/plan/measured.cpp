#include "plan/measured.h"

#include <algorithm>
#include <set>

#include "core/check.h"
#include "graph/measured.h"

namespace tandem {
namespace {

bool holds(const MeasuredList& measured, const std::string& symbol) {
  return std::ranges::any_of(measured, [&](const Measured& m) { return m.symbol == symbol; });
}

}  // namespace

MeasuredList measured_of(const Program& program) {
  MeasuredList list;
  for (std::size_t s = 0; s < program.steps.size(); ++s) {
    const Step& step = program.steps[s];
    if (!measures(step.attributes)) continue;
    const OpCall call{nullptr, step.attributes, {program.values.at(static_cast<std::size_t>(step.operands.at(0))).type}, {}};
    MeasuredExtent extent = *measured_extent(call);
    list.push_back({std::move(extent.symbol), std::move(extent.bound), static_cast<int>(s), step.results.back()});
  }
  return list;
}

void bind_to_bounds(const MeasuredList& measured, SymbolValues& symbols) {
  for (const Measured& m : measured) symbols[m.symbol] = m.bound.evaluate(symbols);
}

bool is_measured(const MeasuredList& measured, const std::vector<Dim>& dims) {
  if (measured.empty()) return false;
  std::set<std::string> symbols;
  for (const Dim& dim : dims) dim.collect_symbols(symbols);
  return std::ranges::any_of(symbols, [&](const std::string& symbol) { return holds(measured, symbol); });
}

Shape largest_dims(const MeasuredList& measured, const std::vector<Dim>& dims, const SymbolValues& symbols) {
  Shape shape;
  const bool open = is_measured(measured, dims);
  SymbolRanges ranges;
  if (open)
    for (const auto& [name, value] : symbols) ranges[name] = {holds(measured, name) ? 0 : value, value};
  for (const Dim& dim : dims) shape.push_back(open ? dim.bounds(ranges).max : dim.evaluate(symbols));
  return shape;
}

// GPUs that exchange blocks count on arenas and workspaces that are the same on all of them from the start of a run.
std::string refuse_measured(std::string_view device, const Program& program, std::size_t* step) {
  const MeasuredList measured = device == "cpu" ? MeasuredList() : measured_of(program);
  if (measured.empty()) return {};
  const Measured& first = measured.front();
  for (std::size_t s = static_cast<std::size_t>(first.step) + 1; s < program.steps.size(); ++s) {
    if (!program.steps[s].communicates) continue;
    *step = s;
    const Step& before = program.steps[static_cast<std::size_t>(first.step)];
    return fmt::format(
        "it communicates after [{} \"{}\"], whose extent '{}' is known only when that has run: GPUs exchange no blocks behind it; "
        "build for one GPU, or for ranks on the CPU",
        before.op, before.node, first.symbol);
  }
  return {};
}

}  // namespace tandem
