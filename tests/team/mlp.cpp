#include "team/mlp.h"

#include "team/weights.h"

namespace tandem {
namespace {

double number(std::int64_t i) { return static_cast<double>(i * 7 % 11) / 8 - 0.5; }

}  // namespace

WeightSource Built::weights() const { return weights_of(module, plan->mesh); }

Built build_mlp(const std::string& mesh, bool lookup) {
  auto module = std::make_shared<Module>(all_ops());
  Graph& graph = module->add_graph("main");
  const auto weight = [&](const std::string& name, std::int64_t rows, std::int64_t columns) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < rows * columns; ++i) values.push_back(number(i));
    module->add_source(name, Tensor::of(DType::f32, {rows, columns}, values));
    return graph.weight_value(module->add_weight(name, Recipe::from_source(name, DType::f32, {rows, columns})));
  };
  GraphBuilder builder(graph);
  Value* x = lookup ? builder.add("Gather", {weight("table", kRows, kWidth), graph.add_input("ids", {DType::i64, {Dim::symbol("B")}})})
                    : graph.add_input("x", {DType::f32, {Dim::symbol("B"), kWidth}});
  Value* hidden = builder.add("Relu", {builder.add("MatMul", {x, weight("w1", kWidth, kHidden)})});
  graph.outputs().push_back({"y", builder.add("MatMul", {hidden, weight("w2", kHidden, kWidth)})});
  graph.profiles.push_back({{"B", {0, 4, 64}}});
  shard(*module, {Mesh::parse(mesh), {}});
  auto plan = std::make_shared<Plan>(build_plan(*module));
  return {module, plan};
}

std::vector<double> expected(const std::vector<double>& x) {
  std::vector<double> y;
  for (std::size_t row = 0; row < x.size() / kWidth; ++row)
    for (std::int64_t j = 0; j < kWidth; ++j) {
      double sum = 0;
      for (std::int64_t h = 0; h < kHidden; ++h) {
        double inner = 0;
        for (std::int64_t k = 0; k < kWidth; ++k) inner += x[row * kWidth + static_cast<std::size_t>(k)] * number(k * kHidden + h);
        sum += std::max(inner, 0.0) * number(h * kWidth + j);
      }
      y.push_back(sum);
    }
  return y;
}

std::vector<double> ramp(std::int64_t rows) {
  std::vector<double> x;
  for (std::int64_t i = 0; i < rows * kWidth; ++i) x.push_back(static_cast<double>(i % 13) / 4 - 1.25);
  return x;
}

Tensor ids_of(const std::vector<std::int64_t>& ids) { return Tensor::of_ints(DType::i64, {static_cast<std::int64_t>(ids.size())}, ids); }

std::vector<double> looked_up(const std::vector<std::int64_t>& ids) {
  std::vector<double> x;
  for (const std::int64_t id : ids)
    for (std::int64_t k = 0; k < kWidth; ++k) x.push_back(number(id * kWidth + k));
  return x;
}

std::vector<std::string> own_ranks() { return {"/proc/self/exe", "rank"}; }

}  // namespace tandem
