#include "graph/evaluate.h"

#include "core/check.h"
#include "graph/measured.h"

namespace tandem {

NamedTensors evaluate(const Graph& graph, const NamedTensors& inputs, const SymbolValues& given) {
  SymbolValues symbols = given;
  bind_to_bounds(graph, symbols);
  std::map<const Value*, Tensor> values;
  for (const auto& input : graph.inputs()) values[input.get()] = inputs.at(input->name());
  for (const auto& weight : graph.weight_values()) values[weight.get()] = graph.module().weight_data(*weight->weight());
  std::map<const Value*, std::size_t> uses;  // that are left, so that what nobody reads any more can go
  for (const auto& node : graph.nodes())
    for (const Value* v : node->operands())
      if (v) ++uses[v];
  for (const auto& output : graph.outputs()) ++uses[output.value];
  for (const auto& node : graph.nodes()) {
    if (!node->op().evaluate) throw Error(ErrorCode::unsupported, "it has no plain evaluator", node->label());
    const OpCall call = node->call().bound(symbols);
    std::vector<Tensor> operands;
    for (const Value* v : node->operands()) operands.push_back(v ? values.at(v) : Tensor());
    const std::vector<Tensor> results = node->op().evaluate(call, operands);
    for (std::size_t i = 0; i < results.size(); ++i) values[node->result(i)] = results[i];
    if (const auto extent = measured_extent(*node)) symbols[extent->symbol] = results.back().int_at(0);
    for (const Value* v : node->operands())
      if (v && --uses[v] == 0) values.erase(v);
  }
  NamedTensors outputs;
  for (const auto& output : graph.outputs()) outputs[output.name] = values.at(output.value);
  return outputs;
}

}  // namespace tandem
