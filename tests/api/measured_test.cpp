// Shapes that depend on data: programs behind NonZero against plain loops, what callers are told of shapes, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "api/run/engine_data.h"
#include "graph/text.h"
#include "ops/ops.h"
#include "support/temporary_folder.h"
#include "support/thrown.h"
#include "tandem/tandem.h"

namespace tandem {
namespace {

using testing::thrown;
using Doubles = std::vector<double>;

Array array(const Shape& shape, const Doubles& values, DType dtype = DType::f32) { return to_array(Tensor::of(dtype, shape, values)); }
Doubles numbers(const Array& a) { return to_tensor(a).to_doubles(); }

// One of `in` elements is not zero.
Array sparse(const Shape& shape, unsigned in, unsigned seed) {
  std::mt19937 random(seed);
  Doubles values(static_cast<std::size_t>(element_count(shape)));
  for (double& v : values) v = random() % in == 0 ? static_cast<double>(random() % 9) - 4.5 : 0;
  return array(shape, values);
}

// Rows and columns of the elements of [rows, columns] that are not zero.
std::vector<std::pair<std::int64_t, std::int64_t>> places(const Array& x) {
  std::vector<std::pair<std::int64_t, std::int64_t>> found;
  const Doubles values = numbers(x);
  for (std::int64_t i = 0; i < x.shape[0]; ++i)
    for (std::int64_t j = 0; j < x.shape[1]; ++j)
      if (values[static_cast<std::size_t>(i * x.shape[1] + j)] != 0) found.emplace_back(i, j);
  return found;
}

Network::Value nonzero(Network& network, const Network::Value& x, const std::string& symbol = "") {
  return network.add_all("NonZero", {x}, {{"symbol", symbol}}, "find").at(0);
}

// Index tuples as GatherND takes them.
Network::Value tuples(Network& network, const Network::Value& indices) {
  return network.add("Transpose", {indices}, {{"permutation", std::vector<std::int64_t>{1, 0}}});
}

Doubles sines(double step) {
  Doubles v;
  for (int i = 0; i < 24; ++i) v.push_back(std::sin(step * i));
  return v;
}

// x [B,4] → where it is not zero, as tuples too, those elements, their sum, and the rows that they are in through w [4,6] and back.
struct Selection {
  Array w = array({4, 6}, sines(1)), back = array({6, 4}, sines(2));
  Network network;
  Selection() {
    const auto in = network.input("x", DType::f32, {"B", 4});  // times one: what a mesh can split
    const auto x = network.add("MatMul", {in, network.weight("one", array({4, 4}, {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}))});
    const auto indices = nonzero(network, x);
    const auto where = tuples(network, indices);
    const auto picked = network.add("GatherND", {x, where}, {}, "pick");
    const auto rows = network.add("Gather", {indices, network.constant(array({}, {0}, DType::i64))});
    network.output("indices", indices);
    network.output("tuples", where);
    network.output("picked", picked);
    network.output("sum", network.add("Reduce", {picked}, {{"axes", std::vector<std::int64_t>{0}}}));
    const auto hidden = network.add("Relu", {network.add("MatMul", {network.add("Gather", {x, rows}), network.weight("w", w)})});
    network.output("rows", network.add("MatMul", {hidden, network.weight("back", back)}, {}, "times"));
    network.output("relu", network.add("Relu", {x}));
  }

  void expect(const RankArrays& got, const Array& x) const {
    const auto found = places(x);
    const auto n = static_cast<std::int64_t>(found.size());
    const Doubles values = numbers(x), weights = numbers(w), backward = numbers(back);
    ASSERT_EQ(got.at("indices").at(0).shape, (Shape{2, n}));
    ASSERT_EQ(got.at("tuples").at(0).shape, (Shape{n, 2}));
    ASSERT_EQ(got.at("picked").at(0).shape, (Shape{n}));
    ASSERT_EQ(got.at("rows").at(0).shape, (Shape{n, 4}));
    ASSERT_EQ(got.at("relu").at(0).shape, x.shape);
    const Doubles indices = numbers(got.at("indices")[0]), tuples = numbers(got.at("tuples")[0]), picked = numbers(got.at("picked")[0]),
                  rows = numbers(got.at("rows")[0]);
    double sum = 0;
    for (std::size_t k = 0; k < found.size(); ++k) {
      const auto [i, j] = found[k];
      EXPECT_EQ(indices[k], static_cast<double>(i));
      EXPECT_EQ(indices[k + found.size()], static_cast<double>(j));
      EXPECT_EQ(tuples[2 * k], static_cast<double>(i));
      EXPECT_EQ(tuples[2 * k + 1], static_cast<double>(j));
      EXPECT_EQ(picked[k], values[static_cast<std::size_t>(i * 4 + j)]);
      sum += picked[k];
      Doubles want(4, 0);
      for (std::size_t c = 0; c < 6; ++c) {
        double hidden = 0;
        for (std::size_t m = 0; m < 4; ++m) hidden += values[static_cast<std::size_t>(i) * 4 + m] * weights[m * 6 + c];
        for (std::size_t m = 0; m < 4; ++m) want[m] += std::max(hidden, 0.0) * backward[c * 4 + m];
      }
      for (std::size_t m = 0; m < 4; ++m) EXPECT_NEAR(rows[k * 4 + m], want[m], 1e-4);
    }
    EXPECT_NEAR(numbers(got.at("sum").at(0)).at(0), sum, 1e-4);
  }
};

class MeasuredOnMesh : public ::testing::TestWithParam<const char*> {};

TEST_P(MeasuredOnMesh, GivesWhatLoopsGive) {
  const Selection selection;
  BuildOptions options;
  options.mesh = GetParam();
  Model model(build(selection.network, options), {.threads = 1});
  for (const unsigned in : {3u, 1u, 3u, 1000000u, 2u})  // the same shapes, other numbers of elements; all, none
    for (const std::int64_t rows : {6, 8}) {
      SCOPED_TRACE(::testing::Message() << "one of " << in << ", " << rows << " rows");
      const Array x = sparse({rows, 4}, in, in + static_cast<unsigned>(rows));
      selection.expect(model.run(RankArrays{{"x", {x}}}), x);
    }
}

INSTANTIATE_TEST_SUITE_P(Measured, MeasuredOnMesh, ::testing::Values("", "dp=2", "tp=2", "dp=2,tp=2"));

TEST(Measured, RanksOfTheCpuCommunicateBehindIt) {
  const Selection selection;
  const std::vector<CollectiveReport> calls = build(selection.network, {.mesh = "tp=2"}).collectives();
  const auto behind = [](const CollectiveReport& call) { return call.count.find("non_zero_0") != std::string::npos; };
  EXPECT_TRUE(std::ranges::any_of(calls, behind));
}

TEST(Measured, ProgramsGoThroughTextAndEngineFiles) {
  const Selection selection;
  const auto parsed = parse_module(selection.network.to_text(), all_ops());
  EXPECT_NO_THROW(verify(*parsed));
  EXPECT_EQ(print(*parsed), selection.network.to_text());
  const testing::TemporaryFolder folder;
  const std::string path = folder.path() / "selection.tandem";
  build(selection.network, {.mesh = "tp=2"}).save(path);
  const Engine engine = load_engine(path);
  EXPECT_EQ(engine.outputs().at(1).shape, (std::vector<std::string>{"non_zero_0", "2"}));
  EXPECT_EQ(engine.outputs().at(1).range.at(0), (Shape{0, 2}));
  EXPECT_EQ(engine.outputs().at(1).range.at(2), (Shape{65536 * 4, 2}));
  EXPECT_NE(engine.describe({{"B", 10}}).find("\"non_zero_0\":40"), std::string::npos);
  EXPECT_EQ(thrown([&] { engine.describe({{"non_zero_0", 3}}); }).code(), ErrorCode::invalid_argument);
  const Array x = sparse({7, 4}, 2, 1);
  selection.expect(Model(engine).run(RankArrays{{"x", {x}}}), x);
}

TEST(Measured, OneAfterAnother) {
  Network network;
  const auto x = network.input("x", DType::f32, {"B", 4});
  const auto picked = network.add("GatherND", {x, tuples(network, nonzero(network, x))});
  const auto again = nonzero(network, network.add("Greater", {picked, network.scalar(DType::f32, 0)}));
  network.output("picked", picked);
  network.output("positive", network.add("GatherND", {picked, tuples(network, again)}));
  Model model(build(network));
  for (const unsigned in : {2u, 1u, 1000000u, 5u}) {
    const Array x = sparse({9, 4}, in, in);
    Doubles all, positive;
    for (const double v : numbers(x)) {
      if (v != 0) all.push_back(v);
      if (v > 0) positive.push_back(v);
    }
    const RankArrays got = model.run(RankArrays{{"x", {x}}});
    EXPECT_EQ(numbers(got.at("picked").at(0)), all);
    EXPECT_EQ(numbers(got.at("positive").at(0)), positive);
  }
}

TEST(Measured, ExtentsThatMustAgreeAreComparedInTheRun) {
  Network network;
  const auto x = network.input("x", DType::f32, {4, 4}), y = network.input("y", DType::f32, {"K"});
  const auto picked = network.add("GatherND", {x, tuples(network, nonzero(network, x))});
  network.output("z", network.add("Add", {picked, y}, {}, "both"));
  Model model(build(network));
  const Array x3 = array({4, 4}, {0, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3});
  EXPECT_EQ(numbers(model.run(RankArrays{{"x", {x3}}, {"y", {array({3}, {10, 20, 30})}}}).at("z").at(0)), (Doubles{11, 22, 33}));
  const Error error = thrown([&] { model.run(RankArrays{{"x", {x3}}, {"y", {array({2}, {10, 20})}}}); });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
  EXPECT_NE(std::string(error.what()).find("both"), std::string::npos) << error.what();
  EXPECT_EQ(numbers(model.run(RankArrays{{"x", {x3}}, {"y", {array({3}, {1, 2, 3})}}}).at("z").at(0)), (Doubles{2, 4, 6}));
}

// A program may use the number alone.
TEST(Measured, TheNumberAlone) {
  Network network;
  const auto x = network.input("x", DType::boolean, {"B", 3});
  const auto both = network.add_all("NonZero", {x}, {{"symbol", std::string("n")}});
  network.output("count", both.at(1));
  network.output("doubled", network.add("DimValue", {}, {{"values", Extents{"2*n"}}, {"shape", std::vector<std::int64_t>{1}}}));
  const RankArrays got = Model(build(network)).run(RankArrays{{"x", {array({2, 3}, {1, 0, 1, 1, 0, 0}, DType::boolean)}}});
  EXPECT_EQ(numbers(got.at("count").at(0)), Doubles{3});
  EXPECT_EQ(numbers(got.at("doubled").at(0)), Doubles{6});
}

// Gives fresh memory, and writes down what it is told.
struct Heard final : OutputAllocator {
  std::vector<std::byte> memory;
  std::size_t bytes = 0;
  Shape shape;
  void* reallocate(std::size_t, void* current, std::size_t needed, void*) override {
    EXPECT_EQ(current, nullptr);
    bytes = needed;
    shape = {-7};
    memory.assign(needed, std::byte{0x5a});
    return memory.data();
  }
  void notify_shape(std::size_t, const Shape& told) override { shape = told; }
};

TEST(Measured, ContextsSayTheLargestShapeBeforeAndTheRealOneAfter) {
  Network network;
  network.output("indices", nonzero(network, network.input("x", DType::f32, {"B", 4})));
  network.output("same", network.input("y", DType::f32, {2}));
  const Engine engine = build(network);
  Context context(engine);
  context.set_input_shape(0, {5, 4});
  EXPECT_EQ(context.measured_dims(0), (std::vector<bool>{false, true}));
  EXPECT_EQ(context.measured_dims(1), std::vector<bool>{false});
  EXPECT_EQ(context.output_shape(0), (Shape{2, 20}));
  EXPECT_EQ(thrown([&] { context.last_output_shape(0); }).code(), ErrorCode::invalid_argument);
  const Array x = sparse({5, 4}, 3, 2), y = array({2}, {1, 2});
  const auto count = static_cast<std::int64_t>(places(x).size());
  std::vector<std::int64_t> indices(40);
  std::vector<float> same(2);
  const void* const in[] = {x.data.get(), y.data.get()};
  void* const out[] = {indices.data(), same.data()};
  context.run(in, out);
  EXPECT_EQ(context.last_output_shape(0), (Shape{2, count}));
  EXPECT_EQ(context.last_output_shape(1), Shape{2});
  EXPECT_EQ(context.output_shape(0), (Shape{2, 20}));
  EXPECT_EQ(indices[static_cast<std::size_t>(count)], places(x).at(0).second);  // dense: the second row begins where the first ends
  const auto heard = std::make_shared<Heard>();
  context.set_output_allocator(0, heard);
  void* const none[] = {nullptr, same.data()};
  for (int i = 0; i < 2; ++i) {
    context.enqueue(in, none);
    EXPECT_EQ(heard->bytes, 40 * sizeof(std::int64_t));
    EXPECT_EQ(heard->shape, (Shape{2, count}));
    EXPECT_EQ(std::memcmp(heard->memory.data(), indices.data(), static_cast<std::size_t>(2 * count) * sizeof(std::int64_t)), 0);
  }
}

// Whatever would be found: room for the most is asked for.
TEST(Measured, ANullPointerIsRefusedWhereTheMostHasBytes) {
  Network network;
  network.output("indices", nonzero(network, network.input("x", DType::f32, {"B", 4})));
  const Engine engine = build(network);
  Context context(engine);
  context.set_input_shape(0, {5, 4});
  const std::vector<float> zeros(20, 0.0f);
  std::vector<std::int64_t> indices(40);
  const void* const in[] = {zeros.data()};
  void* const out[] = {indices.data()};
  void* const none[] = {nullptr};
  context.run(in, out);
  EXPECT_EQ(context.last_output_shape(0), (Shape{2, 0}));
  for (const bool enqueue : {false, true}) {
    const Error error = thrown([&] { enqueue ? context.enqueue(in, none) : context.run(in, none); });
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(error.message().find("output 'indices' is given as a null pointer, expected memory of 320 bytes"), std::string::npos);
    EXPECT_EQ(thrown([&] { context.last_output_shape(0); }).code(), ErrorCode::invalid_argument);  // the last run failed
  }
  Network nothing;
  nothing.output("indices", nonzero(nothing, nothing.input("x", DType::f32, {0, 4})));
  Context empty(build(nothing));
  empty.run(none, none);
  EXPECT_EQ(empty.last_output_shape(0), (Shape{2, 0}));
}

TEST(Measured, StepsAreTimed) {
  const Selection selection;
  Model model(build(selection.network), {.threads = 1});
  const Array x = sparse({6, 4}, 2, 1);
  RankArrays got;
  const auto steps = model.profile({{"x", {x}}}, &got);
  selection.expect(got, x);
  bool found = false;
  for (const StepTime& step : steps.at(0)) found = found || step.op == "NonZero";
  EXPECT_TRUE(found);
}

TEST(Measured, WhatIsWrongIsSaid) {
  Network clash;
  clash.output("y", nonzero(clash, clash.input("x", DType::f32, {"n"}), "n"));
  const Error same = thrown([&] { build(clash); });
  EXPECT_NE(std::string(same.what()).find("measures 'n', which has a range of its own"), std::string::npos) << same.what();
  Network twice;
  const auto x = twice.input("x", DType::f32, {5});
  twice.output("y", nonzero(twice, x, "n"));
  twice.output("z", nonzero(twice, twice.add("Relu", {x}), "n"));
  const Error both = thrown([&] { build(twice); });
  EXPECT_NE(std::string(both.what()).find("another node measures"), std::string::npos) << both.what();
  const auto early = parse_module(R"(module
program main {
  input %x: f32[4]
  %y = DimValue() {shape=[1], values=[n]}
  %i, %c = NonZero(%x) {symbol="n"}
  return %y, %i
}
)",
                                  all_ops());
  const Error order = thrown([&] { verify(*early); });
  EXPECT_NE(std::string(order.what()).find("holds 'n', which is measured only later"), std::string::npos) << order.what();
}

}  // namespace
}  // namespace tandem
