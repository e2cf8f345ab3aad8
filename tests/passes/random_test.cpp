// Random small programs through every pass, alone and in the pipeline's order: the results stay. A failure names the seed.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>
#include <set>

#include "core/check.h"
#include "graph/text.h"
#include "ops/ops.h"
#include "passes/evaluate.h"
#include "passes/pipeline.h"
#include "support/cases.h"

namespace tandem {
namespace {

constexpr int kPrograms = 150;
const Dim kB = Dim::symbol("B"), kS = Dim::symbol("S");
constexpr std::int64_t kWidth = 8;

// Grows a program from pieces that exporters write, in random order, over values [B,S,8].
class Author {
 public:
  explicit Author(std::uint64_t seed) : random_(seed), module_(std::make_unique<Module>(all_ops())), graph_(module_->add_graph("main")) {
    graph_.profiles = {{{"B", {1, 2, 3}}, {"S", {1, 3, 6}}}};
    const std::vector<Dim> dims = {kB, kS, Dim(kWidth)};
    values_ = {graph_.add_input("x", {DType::f32, dims}), graph_.add_input("y", {DType::f32, dims})};
    mask_ = graph_.add_input("mask", {DType::boolean, {kB, kS}});
  }

  std::unique_ptr<Module> write() {
    const int count = 4 + pick(8);
    for (int i = 0; i < count; ++i) values_.push_back(calm(piece()));
    graph_.outputs().push_back({"last", values_.back()});
    graph_.outputs().push_back({"other", any()});
    graph_.erase_dead();
    return std::move(module_);
  }

 private:
  int pick(int n) { return static_cast<int>(random_() % static_cast<std::uint64_t>(n)); }
  Value* any() { return values_[static_cast<std::size_t>(pick(static_cast<int>(values_.size())))]; }
  Value* add(std::string_view op, std::vector<Value*> operands, const NamedAttributes& attributes = {}) {
    return graph_.add(module_->op(op), std::move(operands), attributes)->result();
  }
  // Keeps magnitudes near 1 without making results coarse.
  Value* calm(Value* x) { return add("Tanh", {x}); }
  Value* number(double value, Shape shape = {}) {
    const std::vector<double> all(static_cast<std::size_t>(element_count(shape)), value);
    return add("Constant", {}, {{"value", Tensor::of(DType::f32, shape, all)}});
  }
  Value* weight(Shape shape, DType type = DType::f32) {
    const std::string name = fmt::format("w{}", ++weights_);
    return graph_.weight_value(module_->add_weight(name, Recipe::from_source(name, type, std::move(shape))));
  }
  // [8, columns], sometimes quantised: with one scale, one per column, or one per four rows of a column, from either side.
  Value* matrix(std::int64_t columns) {
    const int how = pick(8);
    if (how == 4) return add("DequantizeLinear", {weight({kWidth, columns}, DType::i8), number(0.25)});
    if (how == 5) return add("DequantizeLinear", {weight({kWidth, columns}, DType::i8), weight({columns}), weight({columns}, DType::i8)});
    const NamedAttributes rows = {{"axis", std::int64_t{0}}, {"block_size", std::int64_t{4}}}, last = {{"block_size", std::int64_t{4}}};
    if (how == 6) return add("DequantizeLinear", {weight({kWidth, columns}, DType::u4), weight({2, columns})}, rows);
    if (how == 7) return transpose(add("DequantizeLinear", {weight({columns, kWidth}, DType::i4), weight({columns, 2})}, last), {1, 0});
    return how < 2 ? weight({kWidth, columns}) : transpose(weight({columns, kWidth}), {1, 0});
  }
  // What codes of one scale stand for, where the matrix is such too.
  Value* like_codes(Value* x, const Value& matrix) {
    const Node* made = matrix.producer();
    if (!made || !made->is("DequantizeLinear") || made->operands().size() != 2 || made->attributes.integer("block_size") != 0) return x;
    return add("DequantizeLinear", {add("QuantizeLinear", {x, number(0.01)}, {{"to", DType::i8}}), number(0.01)});
  }
  Value* reshape(Value* x, std::vector<Dim> shape) { return add("Reshape", {x}, {{"shape", std::move(shape)}}); }
  Value* transpose(Value* x, std::vector<std::int64_t> permutation) {
    return add("Transpose", {x}, {{"permutation", std::move(permutation)}});
  }
  Value* slice(Value* x, std::int64_t axis, const Dim& start, const Dim& end) {
    return add("Slice", {x},
               {{"starts", std::vector<Dim>{start}},
                {"ends", std::vector<Dim>{end}},
                {"axes", std::vector<std::int64_t>{axis}},
                {"steps", std::vector<std::int64_t>{1}}});
  }
  // Two operands in random order.
  Value* either(std::string_view op, Value* a, Value* b) { return pick(2) ? add(op, {a, b}) : add(op, {b, a}); }

  Value* piece() {
    switch (pick(16)) {
      case 0: return add(std::array{"Neg", "Abs", "Sigmoid", "Relu", "Sin"}[static_cast<std::size_t>(pick(5))], {any()});
      case 1: return either(std::array{"Add", "Mul", "Max"}[static_cast<std::size_t>(pick(3))], any(), any());
      case 2: return either(pick(2) ? "Add" : "Mul", any(), number(pick(3), pick(2) ? Shape{1} : Shape{}));
      case 3: return product(any());
      case 4: return packed(any());
      case 5: return gelu(any());
      case 6: return silu(any());
      case 7: return norm(any());
      case 8: return attention();
      case 9: return rotary(any());
      case 10: return shuffled(any());
      case 11: return either("Add", any(), weight({kWidth}));
      case 12: return masked(any());
      case 13: return packed_heads(any());
      case 14: return normalized_convolution(any());
      default: return halves(any());
    }
  }

  // Flattened or not, with bias or not; sometimes two products of one operand.
  Value* product(Value* x) {
    const bool flat = pick(2) != 0;
    Value* from = flat ? reshape(x, {kB * kS, Dim(kWidth)}) : x;
    Value* by = matrix(kWidth);
    Value* y = add("MatMul", {like_codes(from, *by), by});
    if (pick(2)) y = either("Add", y, weight({kWidth}));
    return flat ? reshape(y, {kB, kS, Dim(kWidth)}) : y;
  }

  Value* packed(Value* x) {
    Value* y = add("MatMul", {x, matrix(3 * kWidth)});
    if (pick(2)) y = either("Add", y, weight({3 * kWidth}));
    Value *a = slice(y, 2, 0, kWidth), *b = slice(y, 2, kWidth, 2 * kWidth), *c = slice(y, 2, 2 * kWidth, 3 * kWidth);
    return add("Add", {either("Mul", add("Silu", {a}), b), c});
  }

  // q, k and v by an index after the columns were opened.
  Value* packed_heads(Value* x) {
    Value* y = add("MatMul", {x, matrix(3 * kWidth)});
    if (pick(2)) y = either("Add", y, weight({3 * kWidth}));
    const auto index = [&](std::int64_t i) {
      return add("Constant", {}, {{"value", Tensor::of_ints(DType::i64, {}, std::vector<std::int64_t>{i})}});
    };
    Value *q = nullptr, *k = nullptr, *v = nullptr;
    if (pick(2)) {
      y = transpose(reshape(y, {kB, kS, 3, 2, 4}), {2, 0, 3, 1, 4});
      q = add("Gather", {y, index(0)}), k = add("Gather", {y, index(-2)}), v = add("Gather", {y, index(2)});
    } else {
      y = reshape(y, {kB, kS, 2, 12});
      const auto part = [&](std::int64_t i) { return transpose(slice(y, 3, 4 * i, 4 * i + 4), {0, 2, 1, 3}); };
      q = part(0), k = part(1), v = part(2);
    }
    return reshape(transpose(add("Attention", {q, k, v}), {0, 2, 1, 3}), {kB, kS, Dim(kWidth)});
  }

  // Over the sequence, then a scale and an offset per channel.
  Value* normalized_convolution(Value* x) {
    Value* y = add("Conv", {transpose(x, {0, 2, 1}), weight({kWidth, kWidth, 3})}, {{"pads", std::vector<Dim>{1, 1}}});
    const auto column = [&] {
      return pick(2) ? weight({kWidth, 1}) : add("Reshape", {add("Tanh", {weight({kWidth})})}, {{"shape", std::vector<Dim>{kWidth, 1}}});
    };
    if (pick(2)) y = either("Add", y, column());
    y = either("Add", either("Mul", y, column()), column());
    return transpose(y, {0, 2, 1});
  }

  Value* gelu(Value* x) {
    Value* gate = nullptr;
    if (pick(2)) {
      gate = add("Erf", {pick(2) ? add("Div", {x, number(std::sqrt(2.0))}) : either("Mul", x, number(std::sqrt(0.5)))});
    } else {
      Value* cube = either("Mul", add("Pow", {x, number(3)}), number(0.044715));
      gate = add("Tanh", {either("Mul", either("Add", x, cube), number(std::sqrt(2 / M_PI)))});
    }
    Value* open = either("Add", gate, number(1));
    return pick(2) ? either("Mul", either("Mul", x, open), number(0.5)) : either("Mul", either("Mul", x, number(0.5)), open);
  }

  Value* silu(Value* x) { return either("Mul", add("Sigmoid", {x}), pick(4) ? x : any()); }

  Value* norm(Value* x) {
    const NamedAttributes mean = {{"kind", std::string("mean")}, {"axes", std::vector<std::int64_t>{-1}}};
    const bool centres = pick(2) != 0;
    if (pick(2)) x = add("Add", {x, any()});
    Value* centred = centres ? add("Sub", {x, add("Reduce", {x}, mean)}) : x;
    Value* square = pick(2) ? add("Pow", {centred, number(2)}) : add("Mul", {centred, centred});
    Value* root = add("Sqrt", {either("Add", add("Reduce", {square}, mean), number(1e-3))});
    Value* y = pick(2) ? add("Div", {centred, root}) : either("Mul", centred, add("Reciprocal", {root}));
    y = either("Mul", y, weight({kWidth}));
    return centres && pick(2) ? either("Add", y, weight({kWidth})) : either("Mul", y, add("Sqrt", {number(4)}));
  }

  // Positions of the sequence along one dimension of a score.
  Value* positions(bool rows) {
    Value* all = add("Iota", {}, {{"extent", kS}});
    return reshape(all, rows ? std::vector<Dim>{1, 1, kS, 1} : std::vector<Dim>{1, 1, 1, kS});
  }

  // mask[b, j] for every b and j, in one of the two ways that exporters write it.
  Value* looked_up() {
    const std::vector<Dim> dims = {kB, 1, 1, kS};
    Value *b = reshape(add("Iota", {}, {{"extent", kB}}), {kB, 1, 1, 1}), *j = positions(false);
    if (pick(2)) {
      Value* length = add("DimValue", {}, {{"values", std::vector<Dim>{kS}}, {"shape", Shape{1}}, {"dtype", DType::i64}});
      Value* found = add("Gather", {reshape(mask_, {kB * kS, 1}), either("Add", j, either("Mul", b, length))});
      return reshape(found, dims);
    }
    const auto part = [&](Value* index) { return reshape(add("Expand", {index}, {{"shape", dims}}), {kB, 1, 1, kS, 1}); };
    return add("GatherND", {mask_, add("Concat", {part(b), part(j)}, {{"axis", std::int64_t{4}}})});
  }

  Value* allowed() {
    Value* causal = pick(2) ? add("LessOrEqual", {positions(false), positions(true)}) : add("Greater", {positions(true), positions(false)});
    Value* padding = pick(2) ? looked_up() : reshape(mask_, {kB, 1, 1, kS});
    switch (pick(3)) {
      case 0: return causal;
      case 1: return padding;
      default: return either("And", causal, padding);
    }
  }

  Value* attention() {
    const std::int64_t heads = pick(2) ? 2 : 1, size = kWidth / 2;
    const auto split = [&](Value* x, std::int64_t count) {
      Value* few = count == 2 ? x : slice(x, 2, 0, size);
      return transpose(reshape(few, {kB, kS, Dim(count), Dim(size)}), {0, 2, 1, 3});
    };
    const auto repeated = [&](Value* x) {
      if (heads == 2) return x;
      Value* open = reshape(x, {kB, 1, 1, kS, Dim(size)});
      return reshape(add("Expand", {open}, {{"shape", std::vector<Dim>{kB, 1, 2, kS, Dim(size)}}}), {kB, 2, kS, Dim(size)});
    };
    Value* x = any();
    const auto source = [&]() { return pick(2) ? any() : product(x); };
    Value *q = split(source(), 2), *k = repeated(split(source(), heads)), *v = repeated(split(source(), heads));
    Value* scores = either("Mul", add("MatMul", {q, transpose(k, {0, 1, 3, 2})}), number(0.5));
    const double low = pick(2) ? -3.4028234663852886e38 : -INFINITY;
    if (pick(3)) scores = either("Add", scores, add("Where", {allowed(), number(0), number(low)}));
    Value* p = add("Softmax", {scores}, {{"axis", std::int64_t{-1}}});
    p = add("Where", {add("IsNaN", {p}), number(0), p});
    return reshape(transpose(add("MatMul", {p, v}), {0, 2, 1, 3}), {kB, kS, Dim(kWidth)});
  }

  Value* rotary(Value* x) {
    const std::int64_t size = kWidth / 2, half = size / 2;
    Value* heads = transpose(reshape(x, {kB, kS, Dim(2), Dim(size)}), {0, 2, 1, 3});
    Value* at = add("Cast", {reshape(add("Iota", {}, {{"extent", kS}}), {1, kS, 1})}, {{"to", DType::f32}});
    Value* angle = add("Mul", {at, weight({half})});
    Value* twice = add("Concat", {angle, angle}, {{"axis", std::int64_t{2}}});
    Value *cos = reshape(add("Cos", {twice}), {1, 1, kS, Dim(size)}), *sin = reshape(add("Sin", {twice}), {1, 1, kS, Dim(size)});
    Value* turned = add("Concat", {add("Neg", {slice(heads, 3, half, size)}), slice(heads, 3, 0, half)}, {{"axis", std::int64_t{3}}});
    Value* y = either("Add", either("Mul", heads, cos), either("Mul", turned, sin));
    return reshape(transpose(y, {0, 2, 1, 3}), {kB, kS, Dim(kWidth)});
  }

  Value* shuffled(Value* x) {
    Value* y = transpose(reshape(x, {kB, kS, Dim(2), Dim(4)}), {0, 2, 1, 3});
    Value* flat = reshape(y, {Dim(2) * kB, kS, Dim(4)});
    Value* turned = reshape(transpose(flat, {0, 2, 1}), {kB, Dim(2), Dim(4), kS});
    return reshape(transpose(turned, {0, 3, 1, 2}), {kB, kS, Dim(kWidth)});
  }

  Value* masked(Value* x) {
    Value* keep = reshape(mask_, {kB, kS, 1});
    if (pick(2)) keep = add("Expand", {keep}, {{"shape", std::vector<Dim>{kB, kS, Dim(kWidth)}}});
    if (pick(2)) return either("Mul", x, add("Cast", {keep}, {{"to", DType::f32}}));
    return add("Where", {pick(2) ? keep : add("Not", {keep}), x, number(pick(2))});
  }

  Value* halves(Value* x) {
    Value *a = slice(x, 2, 0, 4), *b = slice(x, 2, 4, 8);
    return add("Concat", pick(2) ? std::vector{a, b} : std::vector{b, a}, {{"axis", std::int64_t{2}}});
  }

  std::mt19937_64 random_;
  std::unique_ptr<Module> module_;
  Graph& graph_;
  std::vector<Value*> values_;
  Value* mask_ = nullptr;
  int weights_ = 0;
};

class RandomPrograms : public ::testing::TestWithParam<std::string> {
 protected:
  // What `change` makes of a program computes the same.
  void check_programs(const std::function<void(Module&)>& prepare, const std::function<void(Module&)>& change) {
    int changed = 0;
    for (std::uint64_t seed = 1; seed <= kPrograms; ++seed) {
      SCOPED_TRACE(fmt::format("seed {}", seed));
      const auto module = Author(seed).write();
      testing::fill_sources(*module);
      verify(*module);
      const SymbolValues symbols = testing::symbols_of(module->main());
      const auto inputs = testing::random_inputs(module->main(), symbols);
      const auto wanted = testing::evaluate(module->main(), inputs, symbols);
      prepare(*module);
      const std::string before = print(*module);
      change(*module);
      verify(*module);
      changed += print(*module) != before ? 1 : 0;
      const auto got = testing::evaluate(module->main(), inputs, symbols);
      ASSERT_EQ(got.size(), wanted.size());
      for (const auto& [name, tensor] : wanted)
        ASSERT_LE(testing::relative_error(got.at(name), tensor), 2e-5) << name << "\n" << before << print(*module);
    }
    EXPECT_GT(changed, 0) << "the programs hold nothing for it";
  }
};

TEST_P(RandomPrograms, ComputeTheSameAfterwards) {
  const std::string name = GetParam();
  const auto nothing = [](Module&) {};
  const auto pass = [&](Module& module) { pass_named(name).run(module, {}); };
  // Everything that comes before it, for those that look for what others make.
  const auto earlier = [&](Module& module) {
    std::set<std::string> disabled = {name};
    for (bool from = false; const Pass& pass : all_passes())
      if (from = from || pass.name == name; from) disabled.emplace(pass.name);
    run_pipeline(module, {.disabled = disabled, .phases = {Phase::simplify, Phase::fuse}});
  };
  const auto pipeline = [](Module& module) { run_pipeline(module, {.phases = {Phase::simplify, Phase::fuse}}); };
  const bool late = name.starts_with("refine") || pass_named(name == "pipeline" ? "shard" : name).phase == Phase::fuse;
  if (name == "pipeline") check_programs(nothing, pipeline);
  else if (name == "fuse_quantized") check_programs([](Module& module) { pass_named("fuse_dequantize").run(module, {}); }, pass);
  else check_programs(late ? std::function<void(Module&)>(earlier) : nothing, pass);
}

std::vector<std::string> names() {
  std::vector<std::string> names = {"pipeline"};
  for (const Pass& pass : all_passes()) {
    const std::string name(pass.name);
    // Nothing to do here: shapes were symbolic from the start, nothing is dead, nothing lies over a mesh, no types are asked for.
    const bool asked = name == "lower_precision" || name == "quantize_weights" || name == "channels_last";
    const bool over_ranks = pass.phase == Phase::shard || name == "reduce_terms" || name == "fuse_reduce_norm";
    if (over_ranks || name == "remove_dead" || name == "fold_shapes" || asked) continue;
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(Passes, RandomPrograms, ::testing::ValuesIn(names()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace tandem
