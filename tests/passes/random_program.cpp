#include "passes/random_program.h"

#include "core/check.h"
#include "ops/ops.h"

namespace tandem::testing {
namespace {

// Grows a program of [B,S,C] values.
class Grower {
 public:
  Grower(Module& module, Dice& dice) : module_(module), graph_(module.main()), dice_(dice) {}

  void grow() {
    const Dim batch = pick(2) ? Dim::symbol("B") : Dim(1 + pick(4)), sequence = pick(3) ? Dim::symbol("S") : Dim(1 + pick(6));
    if (pick(2)) {
      Value* ids = graph_.add_input("ids", {DType::i64, {batch, sequence}});
      add(op("Gather", {weight({12, 8}), ids}, {{"axis", std::int64_t{0}}}));
    } else {
      add(graph_.add_input("x", {DType::f32, {batch, sequence, 8}}));
    }
    for (int i = 0, n = 2 + pick(9); i < n; ++i) step();
    graph_.outputs().push_back({"last", values_.back()});
    if (pick(2)) graph_.outputs().push_back({"other", any()});
  }

 private:
  int pick(int below) { return dice_.pick(below); }
  Value* op(std::string_view name, std::vector<Value*> operands, const NamedAttributes& attributes = {}) {
    return graph_.add(module_.op(name), std::move(operands), attributes)->result();
  }
  void add(Value* value) { values_.push_back(value); }
  Value* any() {
    return values_[values_.size() - 1 - static_cast<std::size_t>(pick(static_cast<int>(std::min<std::size_t>(values_.size(), 3))))];
  }

  Value* weight(const Shape& shape, DType type = DType::f32) {
    const std::string name = fmt::format("w{}", count_++);
    return graph_.weight_value(module_.add_weight(name, Recipe::from_source(name, type, shape)));
  }

  Value* linear(Value* x, std::int64_t columns) {
    const Shape shape = {x->type.dims.back().constant(), columns};
    if (pick(5) == 0) return op("DequantMatMul", {x, weight(shape, DType::i8), nullptr, nullptr, weight({columns})});
    return op("MatMul", {x, weight(shape)});
  }

  Value* heads(Value* x, std::int64_t count) {
    const auto& d = x->type.dims;
    Value* split = op("Reshape", {x}, {{"shape", std::vector<Dim>{d[0], d[1], Dim(count), Dim(d[2].constant() / count)}}});
    return op("Transpose", {split}, {{"permutation", std::vector<std::int64_t>{0, 2, 1, 3}}});
  }

  // Keys and values follow a cache that comes in, or now and then lie before it, or are the cache alone; the longer cache may go out.
  void use_cache(std::vector<Value*>& operands) {
    const Dim past = pick(2) ? Dim::symbol("P") : Dim(pick(9));
    const int kind = pick(8);
    for (const std::size_t i : {std::size_t{1}, std::size_t{2}}) {
      const auto& d = operands[i]->type.dims;
      Value* cache = graph_.add_input(fmt::format("cache{}", count_++), {DType::f32, {d[0], d[1], past, d[3]}});
      const std::vector<Value*> parts = kind == 0 ? std::vector{operands[i], cache} : std::vector{cache, operands[i]};
      operands[i] = kind == 1 ? cache : op("Concat", parts, {{"axis", std::int64_t{pick(2) ? 2 : -2}}});
      if (kind != 1 && pick(2)) graph_.outputs().push_back({fmt::format("present{}", count_++), operands[i]});
    }
    const Dim rows = pick(2) ? operands[0]->type.dims[2] : Dim(1);
    if (pick(3) == 0)
      operands.push_back(graph_.add_input(fmt::format("mask{}", count_++), {DType::f32, {rows, operands[1]->type.dims[2]}}));
  }

  Value* attention(Value* x) {
    const std::int64_t q_heads = 4, kv_heads = pick(2) ? 4 : 2;
    Value* q = heads(linear(x, 8), q_heads);
    Value* k = heads(linear(x, 2 * kv_heads), kv_heads);
    Value* v = heads(linear(x, 2 * kv_heads), kv_heads);
    std::vector<Value*> operands = {q, k, v};
    if (pick(3) == 0) use_cache(operands);
    const char* causal[] = {"none", "upper_left", "lower_right"};
    Value* out = op("Attention", operands, {{"scale", 0.5}, {"causal", std::string(causal[pick(3)])}});
    Value* back = op("Transpose", {out}, {{"permutation", std::vector<std::int64_t>{0, 2, 1, 3}}});
    return op("Reshape", {back}, {{"shape", std::vector<Dim>{x->type.dims[0], x->type.dims[1], 8}}});
  }

  void step() {
    Value* x = any();
    const auto dims = x->type.dims;
    const std::int64_t last = dims[2].constant();
    switch (pick(14)) {
      case 0: return add(linear(x, 4 * (1 + pick(3))));
      case 1: return add(op("Tanh", {x}));
      case 2: return add(op("Add", {x, weight({last})}));
      case 3: return add(op("Add", {x, linear(op("Tanh", {linear(x, 12)}), last)}));
      case 4: return add(op("Add", {linear(x, 8), attention(x)}));
      case 5: return add(op("Softmax", {x}, {{"axis", std::int64_t{pick(3)}}}));
      case 6: {
        const char* kinds[] = {"sum", "mean", "max"};
        return add(
            op("Sub", {x, op("Reduce", {x}, {{"kind", std::string(kinds[pick(3)])}, {"axes", std::vector<std::int64_t>{pick(3)}}})}));
      }
      case 7: return add(op("Concat", {x, op("Tanh", {x})}, {{"axis", std::int64_t{2}}}));
      case 8:
        return add(op("Slice", {x},
                      {{"starts", std::vector<Dim>{1}},
                       {"ends", std::vector<Dim>{last}},
                       {"axes", std::vector<std::int64_t>{2}},
                       {"steps", std::vector<std::int64_t>{1}}}));
      case 9: {
        Value* flat = op("Reshape", {x}, {{"shape", std::vector<Dim>{dims[0] * dims[1], last}}});
        return add(op("Reshape", {linear(flat, 8)}, {{"shape", std::vector<Dim>{dims[0], dims[1], 8}}}));
      }
      case 10: {
        Value* turned =
            op("Softmax", {op("Transpose", {x}, {{"permutation", std::vector<std::int64_t>{1, 0, 2}}})}, {{"axis", std::int64_t{2}}});
        return add(op("Transpose", {turned}, {{"permutation", std::vector<std::int64_t>{1, 0, 2}}}));
      }
      case 11: {
        Value* sum = op("Add", {x, linear(op("Tanh", {linear(x, 12)}), last)});
        add(sum);
        return add(op(pick(2) ? "LayerNorm" : "RmsNorm", {sum, weight({last})}, {{"epsilon", 0.1}}));
      }
      case 12: {
        const int axis = pick(3);
        const Dim k = axis == 2 ? Dim(last > 4 ? last - pick(3) : last) : dims[static_cast<std::size_t>(axis)];
        const NamedAttributes attributes = {{"axis", std::int64_t{axis}}, {"k", k}, {"largest", pick(2) == 0}};
        return add(graph_.add(module_.op("TopK"), {x}, attributes)->result(0));
      }
      default: return add(op("Mul", {x, op("Sigmoid", {x})}));
    }
  }

  Module& module_;
  Graph& graph_;
  Dice& dice_;
  std::vector<Value*> values_;
  int count_ = 0;
};

std::string random_placement(Dice& dice, const Type& type, const Mesh& mesh) {
  std::string text;
  for (const MeshAxis& axis : mesh.axes()) {
    const int dim = dice.pick(type.rank() + 1);
    if (dim == type.rank() || text.find(fmt::format("{}:", dim)) != std::string::npos) continue;
    text += fmt::format("{}{}:{}", text.empty() ? "" : ",", dim, axis.name);
  }
  return text.empty() ? "same" : text;
}

}  // namespace

std::unique_ptr<Module> random_program(Dice& dice) {
  auto module = std::make_unique<Module>(all_ops());
  module->add_graph("main");
  Grower(*module, dice).grow();
  fill_sources(*module);
  return module;
}

ShardOptions random_options(Dice& dice, const Graph& graph) {
  const char* meshes[] = {"a=2", "a=3", "a=4", "a=2,b=2", "a=2,b=3"};
  const char* strategies[] = {"tp", "cp", "dp"};
  ShardOptions options{.mesh = Mesh::parse(meshes[dice.pick(5)])};
  for (const MeshAxis& axis : options.mesh.axes()) options.strategies[axis.name] = strategies[dice.pick(3)];
  if (dice.pick(2))
    for (const auto& input : graph.inputs()) options.io[input->name()] = random_placement(dice, input->type, options.mesh);
  if (dice.pick(3) == 0)
    for (const auto& output : graph.outputs()) options.io[output.name] = random_placement(dice, output.value->type, options.mesh);
  return options;
}

}  // namespace tandem::testing
