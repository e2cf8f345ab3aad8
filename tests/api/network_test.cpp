// Networks built in code: what they compute, on every mesh, against plain loops written here; and what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <numeric>
#include <random>

#include "api/run/engine_data.h"
#include "core/check.h"
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

Array random_array(const Shape& shape, unsigned seed, DType dtype = DType::f32) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> real(-1, 1);
  Doubles values(static_cast<std::size_t>(element_count(shape)));
  for (double& v : values) v = real(generator);
  return array(shape, values, dtype);
}

Doubles numbers(const Array& a) { return to_tensor(a).to_doubles(); }

RankArrays run(const Network& network, const std::string& mesh, const RankArrays& inputs) {
  BuildOptions options;
  options.mesh = mesh;
  TeamOptions team;
  team.threads = 1;
  return Model(build(network, options), team).run(inputs);
}

void expect_near(const Doubles& got, const Doubles& want, double tolerance = 1e-5) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << "element " << i;
}

void expect_refused(const std::function<void()>& f, const std::string& words, ErrorCode code = ErrorCode::invalid_argument) {
  const Error error = thrown(f);
  EXPECT_EQ(error.code(), code) << error.what();
  EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << "wanted: " << words << "\nfound:  " << error.what();
}

// [m,k] times [k,n].
Doubles product(const Doubles& a, const Doubles& b, std::size_t m, std::size_t k, std::size_t n) {
  Doubles c(m * n, 0);
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t x = 0; x < k; ++x) c[i * n + j] += a[i * k + x] * b[x * n + j];
  return c;
}

Doubles relu(Doubles x) {
  for (double& v : x) v = std::max(v, 0.0);
  return x;
}

// softmax(q·kᵀ/√D)·v per head; [B,H,S,D].
Doubles attend(const Doubles& q, const Doubles& k, const Doubles& v, std::size_t heads, std::size_t rows, std::size_t size, bool causal) {
  Doubles out(q.size(), 0);
  for (std::size_t h = 0; h < heads; ++h)
    for (std::size_t i = 0; i < rows; ++i) {
      Doubles scores;
      for (std::size_t j = 0; j < (causal ? i + 1 : rows); ++j) {
        double s = 0;
        for (std::size_t d = 0; d < size; ++d) s += q[(h * rows + i) * size + d] * k[(h * rows + j) * size + d];
        scores.push_back(std::exp(s / std::sqrt(static_cast<double>(size))));
      }
      const double total = std::accumulate(scores.begin(), scores.end(), 0.0);
      for (std::size_t j = 0; j < scores.size(); ++j)
        for (std::size_t d = 0; d < size; ++d) out[(h * rows + i) * size + d] += scores[j] / total * v[(h * rows + j) * size + d];
    }
  return out;
}

struct Mlp {
  Array x = random_array({6, 8}, 1), up = random_array({8, 16}, 2), down = random_array({16, 8}, 3);
  Network network;
  Mlp() {
    const auto in = network.input("x", DType::f32, {"B", 8});
    const auto hidden = network.add("Relu", {network.add("MatMul", {in, network.weight("up", up)}, {}, "mlp/up")});
    network.output("y", network.add("MatMul", {hidden, network.weight("down", down)}, {}, "mlp/down") + in);
  }
  Doubles want() const {
    Doubles y = product(relu(product(numbers(x), numbers(up), 6, 8, 16)), numbers(down), 6, 16, 8);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += numbers(x)[i];
    return y;
  }
};

class OnMesh : public ::testing::TestWithParam<const char*> {};

TEST_P(OnMesh, AnMlpGivesWhatLoopsGive) {
  const Mlp mlp;
  const RankArrays got = run(mlp.network, GetParam(), {{"x", {mlp.x}}});
  expect_near(numbers(got.at("y").at(0)), mlp.want());
}

INSTANTIATE_TEST_SUITE_P(Networks, OnMesh, ::testing::Values("", "tp=2", "dp=2", "dp=2,tp=2", "tp=4"));

TEST(Network, StaysAsItIsWhenItIsBuilt) {
  const Mlp mlp;
  const std::string before = mlp.network.to_text();
  const Engine two = build(mlp.network, {.mesh = "tp=2"});
  EXPECT_EQ(two.collectives().size(), 1u);
  EXPECT_EQ(build(mlp.network).collectives().size(), 0u);
  EXPECT_EQ(mlp.network.to_text(), before);
}

TEST(Network, GoesThroughTheEngineFileAndIsRefittedByName) {
  const Mlp mlp;
  const testing::TemporaryFolder folder;
  const std::string path = folder.path() / "mlp.tandem";
  build(mlp.network, {.mesh = "tp=2", .refittable = true}).save(path);
  expect_near(numbers(Model(load_engine(path)).run(Arrays{{"x", mlp.x}}).at("y").at(0)), mlp.want());
  Mlp other;
  other.up = random_array({8, 16}, 12);
  write_arrays(folder.path() / "w.safetensors", {{"up", other.up}});
  refit(path, {folder.path() / "w.safetensors"}, path);
  expect_near(numbers(Model(load_engine(path)).run(Arrays{{"x", mlp.x}}).at("y").at(0)), other.want());
}

TEST(Network, TextParsesBackToTheSameProgram) {
  Mlp mlp;
  mlp.network.symbol("B", 2, 4, 6);
  const auto parsed = parse_module(mlp.network.to_text(), all_ops());
  EXPECT_NO_THROW(verify(*parsed));
  EXPECT_EQ(print(*parsed), mlp.network.to_text());
  EXPECT_NE(mlp.network.to_text().find("symbols(B=2:4:6)"), std::string::npos) << mlp.network.to_text();
  EXPECT_NE(mlp.network.to_text().find("MatMul(%x, %up) \"mlp/up\""), std::string::npos) << mlp.network.to_text();
}

TEST(Network, RangesOfSymbolsAreCheckedWhenShapesAreBound) {
  Mlp mlp;
  mlp.network.symbol("B", 2, 4, 5);
  expect_refused([&] { run(mlp.network, "", {{"x", {mlp.x}}}); }, "B = 6 is outside 2 … 5");
  BuildOptions options;
  options.shapes["x"] = "1x8:4x8:6x8";  // goes before
  EXPECT_NO_THROW(Model(build(mlp.network, options)).run(Arrays{{"x", mlp.x}}));
}

TEST(Network, ExtentsThatInferenceTakesForEqualAreCheckedWhenTheyAreBound) {
  Network network;
  const auto a = network.input("a", DType::f32, {"N", "K"}), b = network.input("b", DType::f32, {"L", "M"});
  const auto table = network.input("table", DType::f32, {"R", 4});
  network.output("c", network.add("MatMul", {a, b}));
  network.output("s",
                 network.add("Slice", {table}, {{"axes", std::vector<std::int64_t>{0}}, {"starts", Extents{0}}, {"ends", Extents{"N"}}}));
  const Engine engine = build(network);
  const Arrays good = {{"a", random_array({2, 3}, 1)}, {"b", random_array({3, 5}, 2)}, {"table", random_array({2, 4}, 3)}};
  expect_near(numbers(Model(engine).run(good).at("c").at(0)), product(numbers(good.at("a")), numbers(good.at("b")), 2, 3, 5));
  Arrays bad = good;
  bad["b"] = random_array({4, 5}, 2);
  expect_refused([&] { Model(engine).run(bad); }, "[MatMul \"matmul\"]");
  bad = good;
  bad["table"] = random_array({1, 4}, 3);
  expect_refused([&] { Model(engine).run(bad); }, "[Slice \"slice\"]");
}

TEST(Network, SharesLargeArraysAndCopiesSmallConstants) {
  const auto held = std::make_shared<std::vector<float>>(2000, 1.0f);
  const auto as_array = [&](std::int64_t count) {
    return Array{DType::f32, {count}, std::shared_ptr<const std::byte>(held, reinterpret_cast<const std::byte*>(held->data()))};
  };
  Network network;
  const auto x = network.input("x", DType::f32, {1});
  network.output("small", network.add("Add", {x, network.constant(as_array(3))}));
  const long before = held.use_count();
  network.output("large", network.add("Add", {x, network.constant(as_array(2000))}));
  EXPECT_GT(held.use_count(), before);
  (*held)[0] = 5;
  const RankArrays got = run(network, "", {{"x", {array({1}, {1})}}});
  EXPECT_EQ(numbers(got.at("small").at(0)), Doubles({2, 2, 2}));
  EXPECT_EQ(numbers(got.at("large").at(0))[0], 6);
}

TEST(Network, AnOutputMayBeAnInputOrAConstant) {
  Network network;
  network.output("same", network.input("x", DType::i64, {"N"}));
  network.output("five", network.scalar(DType::f32, 5));
  const RankArrays got = run(network, "", {{"x", {array({3}, {1, 2, 3}, DType::i64)}}});
  EXPECT_EQ(numbers(got.at("same").at(0)), Doubles({1, 2, 3}));
  EXPECT_EQ(numbers(got.at("five").at(0)), Doubles({5}));
}

struct CollectiveRow {
  const char* operation;
  const char* reduce;
  std::int64_t root;
  // Of ranks 0 and 1 that hold {1, 2} and {10, 20}.
  std::vector<Doubles> want;
};

class Collectives : public ::testing::TestWithParam<CollectiveRow> {};

// By mesh axis, by groups and by the number of ranks alone.
TEST_P(Collectives, GiveEachRankItsPart) {
  const CollectiveRow& row = GetParam();
  for (const int way : {0, 1, 2}) {
    Network network(way == 0 ? "tp=2" : "");
    CollectiveOptions options{.reduce = row.reduce, .root = row.root};
    if (way == 0) options.axis = "tp";
    if (way == 1) options.groups = {{0, 1}};
    if (way == 2) options.num_ranks = 2;
    network.output("y", network.dist_collective(network.input("x", DType::f32, {2}), row.operation, options));
    const RankArrays got = run(network, way == 1 ? "tp=2" : "", {{"x", {array({2}, {1, 2}), array({2}, {10, 20})}}});
    ASSERT_EQ(got.at("y").size(), 2u);
    for (std::size_t r = 0; r < 2; ++r) EXPECT_EQ(numbers(got.at("y")[r]), row.want[r]) << row.operation << " way " << way << " rank " << r;
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, Collectives,
                         ::testing::Values(CollectiveRow{"all_reduce", "sum", -1, {{11, 22}, {11, 22}}},
                                           CollectiveRow{"all_reduce", "max", -1, {{10, 20}, {10, 20}}},
                                           CollectiveRow{"all_gather", "", -1, {{1, 2, 10, 20}, {1, 2, 10, 20}}},
                                           CollectiveRow{"broadcast", "none", 1, {{10, 20}, {10, 20}}},
                                           CollectiveRow{"reduce", "prod", 0, {{10, 40}, {0, 0}}},
                                           CollectiveRow{"reduce_scatter", "", -1, {{11}, {22}}},
                                           CollectiveRow{"all_to_all", "", -1, {{1, 10}, {2, 20}}},
                                           CollectiveRow{"gather", "", 1, {{0, 0, 0, 0}, {1, 2, 10, 20}}},
                                           CollectiveRow{"scatter", "", 0, {{1}, {2}}}, CollectiveRow{"shift", "", -1, {{10, 20}, {1, 2}}}),
                         [](const auto& row) { return std::string(row.param.operation) + row.param.reduce; });

// The rows of the first matrix and the columns of the second stay where they are: Megatron's MLP, written by hand.
TEST(ProgramOfOneRank, HasBlocksOfWeightsInputsAndOutputs) {
  const Array x = random_array({4, 8}, 1), up = random_array({8, 6}, 2), down = random_array({6, 8}, 3);
  Network network("dp=2,tp=2");
  const auto in = network.input("x", DType::f32, {"B", 8}, "0:dp");
  const auto hidden = network.add("Relu", {network.add("MatMul", {in, network.weight("up", up, "1:tp")})});
  const auto part = network.add("MatMul", {hidden, network.weight("down", down, "0:tp")});
  EXPECT_EQ(hidden.shape(), Extents({"ceildiv(B,2)", 3}));
  network.output("y", network.add("AllReduce", {part}, {{"axis", "tp"}}), "0:dp");
  network.output("part", part);
  const RankArrays got = run(network, "", {{"x", {x}}});
  expect_near(numbers(got.at("y").at(0)), product(relu(product(numbers(x), numbers(up), 4, 8, 6)), numbers(down), 4, 6, 8));
  EXPECT_EQ(got.at("y").size(), 1u);
  EXPECT_EQ(got.at("y")[0].shape, Shape({4, 8}));
  EXPECT_EQ(got.at("part").size(), 4u);
  EXPECT_EQ(got.at("part")[3].shape, Shape({2, 8}));
}

class AttentionOverRanks : public ::testing::TestWithParam<std::tuple<const char*, bool>> {};

TEST_P(AttentionOverRanks, EqualsThatOfOne) {
  const auto& [algorithm, causal] = GetParam();
  const Shape shape = {1, 2, 6, 4};
  const Array q = random_array(shape, 1), k = random_array(shape, 2), v = random_array(shape, 3);
  Network network("cp=2");
  std::vector<Network::Value> operands;
  for (const char* name : {"q", "k", "v"}) operands.push_back(network.input(name, DType::f32, {1, 2, 6, 4}, "2:cp"));
  AttentionOptions options{.causal = causal ? "upper_left" : "none", .axis = "cp", .algorithm = algorithm};
  network.output("y", network.attention(operands[0], operands[1], operands[2], options), "2:cp");
  const RankArrays got = run(network, "", {{"q", {q}}, {"k", {k}}, {"v", {v}}});
  expect_near(numbers(got.at("y").at(0)), attend(numbers(q), numbers(k), numbers(v), 2, 6, 4, causal));
}

INSTANTIATE_TEST_SUITE_P(Networks, AttentionOverRanks,
                         ::testing::Combine(::testing::Values("auto", "all_gather", "all_to_all", "ring"), ::testing::Bool()));
INSTANTIATE_TEST_SUITE_P(CausalNetworks, AttentionOverRanks, ::testing::Combine(::testing::Values("balanced"), ::testing::Values(true)));

// As TensorRT's layers are used: the number of ranks is set after the layer was added and its result taken.
TEST(Attributes, ChangeTheShapesOfWhatFollows) {
  Network network;
  const auto x = network.input("x", DType::f32, {2, 3});
  const auto all = network.dist_collective(x, "all_gather", {.num_ranks = 1});
  const auto y = -all;
  EXPECT_EQ(y.shape(), Extents({2, 3}));
  network.set_attribute(all, "num_ranks", std::int64_t{4});
  EXPECT_EQ(all.shape(), Extents({8, 3}));
  EXPECT_EQ(y.shape(), Extents({8, 3}));
  network.set_attribute(all, "dim", std::int64_t{1});
  EXPECT_EQ(y.shape(), Extents({2, 12}));
  EXPECT_EQ(std::get<std::int64_t>(network.attribute(all, "dim")), 1);
  network.add("Add", {y, network.constant(random_array({12}, 1))});
  const std::string before = network.to_text();
  expect_refused([&] { network.set_attribute(all, "num_ranks", std::int64_t{2}); }, "[Add \"add\"]");
  expect_refused([&] { network.set_attribute(all, "dim", std::int64_t{2}); }, "[AllGather \"all_gather\"]");
  expect_refused([&] { network.set_attribute(x, "dim", std::int64_t{2}); }, "is no result of a node");
  EXPECT_EQ(network.to_text(), before);
}

TEST(Attributes, OneRankIsTheIdentity) {
  Network network;
  const auto x = network.input("x", DType::f32, {2});
  network.output("y", network.dist_collective(x, "all_reduce", {.num_ranks = 1}) + x);
  EXPECT_EQ(numbers(run(network, "", {{"x", {array({2}, {1, 2})}}}).at("y").at(0)), Doubles({2, 4}));
}

TEST(Refused, WhatAnOpDoesNotTake) {
  Network network, other;
  const auto x = network.input("x", DType::f32, {2, 3}), i = network.input("i", DType::i64, {2, 3});
  const std::string before = network.to_text();
  expect_refused([&] { network.add("Sofmax", {x}); }, "there is no op 'Sofmax'; did you mean Softmax?");
  expect_refused([&] { network.add("layer_norm", {x}); }, "did you mean LayerNorm?");
  expect_refused([&] { network.add("Softmax", {x}, {{"axes", 1}}); }, "[Softmax] there is no attribute 'axes'; there are axis");
  expect_refused(
      [&] {
        network.add("Softmax", {x}, {{"axis", "last"}}, "top");
      },
      "[Softmax \"top\"] attribute 'axis' is of kind integer, found a text");
  expect_refused([&] { network.add("Softmax", {x}, {{"axis", 2}}); }, "axis 2 is outside rank 2");
  expect_refused([&] { network.add("Add", {x}); }, "[Add] 1 operands are given, expected a, b");
  expect_refused([&] { network.add("Add", {x, {}}); }, "operand 1 ('b') is absent");
  expect_refused([&] { network.add("Add", {x, i}); }, "[Add]");
  expect_refused([&] { network.add("MatMul", {x, x}); }, "cannot multiply f32[2,3] by f32[2,3]");
  expect_refused([&] { network.add("Add", {x, other.input("x", DType::f32, {2, 3})}); }, "'x' belongs to another network");
  expect_refused([&] { network.add("Reduce", {x}, {{"kind", "median"}}); }, "kind='median' is not one of sum mean");
  expect_refused([&] { network.add("Cast", {x}, {{"to", "f33"}}); }, "attribute 'to' (dtype)");
  expect_refused([&] { network.add("Reshape", {x}, {{"shape", Extents{4, -1}}}); }, "cannot reshape [2,3] to [4,-1]");
  expect_refused([&] { network.add("Reshape", {x}, {{"shape", Extents{-1, -1}}}); }, "more than one -1");
  expect_refused([&] { network.add("AddLayerNorm", {x, x, x}); }, "has 2 results: use add_all");
  expect_refused([&] { Extents{"2*"}; }, "2*");
  EXPECT_EQ(network.to_text(), before);
}

TEST(Refused, NamesThatAreTaken) {
  Network network;
  const auto x = network.input("x", DType::f32, {2});
  network.output("y", x);
  network.weight("w", array({2}, {1, 2}));
  expect_refused([&] { network.input("x", DType::f32, {2}); }, "the name is taken");
  expect_refused([&] { network.input("", DType::f32, {2}); }, "it needs a name");
  expect_refused([&] { network.input("n", DType::f32, {-2}); }, "negative extent");
  expect_refused([&] { network.input("n", DType::f32, {"@tp"}); }, "cannot depend on the rank");
  expect_refused([&] { network.weight("w", array({2}, {1, 2})); }, "the name is taken");
  expect_refused([&] { network.weight("v", {DType::f32, {2}, nullptr}); }, "weight 'v' has no memory");
  expect_refused([&] { network.output("y", x); }, "the name is taken");
  expect_refused([&] { network.output("z", {}); }, "absent");
  expect_refused([&] { network.symbol("B", 3, 2, 4); }, "is not ordered");
  expect_refused([&] { network.symbol("2B", 1, 2, 4); }, "2B");
}

TEST(Refused, RanksThatDoNotFit) {
  Network network;
  const auto x = network.input("x", DType::f32, {4});
  expect_refused([&] { network.add("AllReduce", {x}); }, "[AllReduce] it is not said which ranks take part");
  expect_refused([&] { network.add("AllReduce", {x}, {{"axis", "tp"}}); }, "axis 'tp' is not in the network's mesh (it has none)");
  expect_refused(
      [&] {
        network.add("AllReduce", {x}, {{"groups", RankGroups{{0, 1}}}, {"num_ranks", 3}});
      },
      "num_ranks is 3, but axis, groups or mesh say 2");
  expect_refused([&] { network.dist_collective(x, "all_gather", {.reduce = "sum", .num_ranks = 2}); },
                 "all_gather does not reduce, but is given 'sum'");
  expect_refused([&] { network.dist_collective(x, "all_sum", {.num_ranks = 2}); }, "all_sum");
  expect_refused([&] { network.dist_collective(x, "broadcast", {.root = 2, .num_ranks = 2}); }, "root 2 is outside the group");
  expect_refused([&] { network.dist_collective(x, "reduce_scatter", {.num_ranks = 3}); }, "does not divide over 3 ranks");
  expect_refused([&] { network.dist_collective(x, "all_reduce", {.num_ranks = -1}); }, "num_ranks is -1");
  expect_refused([&] { network.input("p", DType::f32, {4}, "0:tp"); }, "the network has no mesh");
  network.output("y", network.dist_collective(x, "all_reduce", {.num_ranks = 2}));
  expect_refused([&] { build(network, {.ranks = 3}); }, "num_ranks is 2, but the world has 3 ranks", ErrorCode::mismatch);
  expect_refused([&] { build(network, {.io = {{"x", "same"}}}); }, "place its inputs and outputs where they are added");
  Network mesh("tp=2");
  mesh.output("y", mesh.input("x", DType::f32, {4}, "0:tp"));
  expect_refused([&] { build(mesh, {.mesh = "tp=4"}); }, "is made for mesh tp=2, asked for is tp=4", ErrorCode::mismatch);
  expect_refused([&] { build(mesh, {.ranks = 4}); }, "asked for are 4", ErrorCode::mismatch);
  expect_refused([&] { mesh.input("p", DType::f32, {4}, "1:tp"); }, "it has 1 dimensions");
  expect_refused([&] { mesh.input("p", DType::f32, {4}, "0:cp"); }, "has no axis 'cp'");
  Network groups;
  groups.output("y", groups.dist_collective(groups.input("x", DType::f32, {4}), "all_reduce", {.groups = {{0, 2}, {1, 3}}}));
  expect_refused([&] { build(groups); }, "say at build how many ranks there are");
  expect_refused([&] { build(groups, {.ranks = 3}); }, "a group names rank 3, but there are 3 ranks", ErrorCode::mismatch);
  EXPECT_EQ(build(groups, {.ranks = 4}).ranks(), 4);
}

TEST(Refused, ProgramsThatCannotBeBuilt) {
  Network network;
  expect_refused([&] { build(network); }, "the network has no outputs");
  const auto x = network.input("x", DType::f32, {"2*S"});
  network.output("y", network.add("Relu", {x}));
  expect_refused([&] { build(network); }, "'S' is the extent of no input by itself");
  Network typo;
  typo.output("y", typo.add("Expand", {typo.input("x", DType::f32, {1, "S"})}, {{"shape", Extents{"T", "S"}}}));
  expect_refused([&] { build(typo); }, "[Expand \"expand\"] 'T' is the extent of no input");
  Network axis("tp=2");
  axis.output("y", axis.add("Iota", {}, {{"offset", "4*@cp"}, {"extent", 4}}));
  expect_refused([&] { build(axis); }, "'@cp' is no coordinate of the network's mesh");
  Network nothing;
  nothing.output("y", nothing.add("Relu", {nothing.input("x", DType::f32, {4})}));
  expect_refused([&] { build(nothing, {.mesh = "tp=2"}); }, "nothing in the model can be split", ErrorCode::unsupported);
  expect_refused([&] { build(nothing, {.mesh = "xy=2"}); }, "names no strategy");
}

TEST(Network, BeginsWithAModel) {
  const std::string path = std::string(TANDEM_MODELS) + "/mlp_dynamo.onnx";
  Network network = Network::from_onnx(path);
  ASSERT_EQ(network.inputs().size(), 1u);
  ASSERT_EQ(network.outputs().size(), 1u);
  const RankArrays x = {{"x", {random_array({3, 32}, 5)}}};
  const auto [name, y] = network.outputs()[0];
  const Doubles before = numbers(run(network, "tp=2", x).at(name).at(0));
  const Doubles file = numbers(Model(build(path)).run(x).at(name).at(0));
  ASSERT_EQ(before.size(), file.size());
  for (std::size_t i = 0; i < file.size(); ++i) EXPECT_NEAR(before[i], file[i], 1e-4);
  network.remove_output(name);
  network.output("negated", -y);
  const Doubles after = numbers(run(network, "tp=2", x).at("negated").at(0));
  for (std::size_t i = 0; i < file.size(); ++i) EXPECT_NEAR(after[i], -file[i], 1e-4);
  expect_refused([&] { network.remove_output(name); }, "there is no output");
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const Array model{
      DType::u8, {static_cast<std::int64_t>(bytes.size())}, {std::shared_ptr<void>(), reinterpret_cast<const std::byte*>(bytes.data())}};
  EXPECT_EQ(Network::from_onnx(model).to_text(), Network::from_onnx(path).to_text());
}

TEST(Ops, TellWhatTheyTake) {
  const OpInfo& norm = op_info("AddLayerNorm");
  EXPECT_EQ(norm.method, "add_layer_norm");
  ASSERT_EQ(norm.operands.size(), 5u);
  EXPECT_EQ(norm.operands[2].name, "scale");
  EXPECT_FALSE(norm.operands[2].optional);
  EXPECT_TRUE(norm.operands[3].optional);
  EXPECT_EQ(norm.results[1].name, "sum");
  EXPECT_EQ(norm.attributes[1].name, "epsilon");
  EXPECT_EQ(std::get<double>(norm.attributes[1].initial), 1e-5);
  EXPECT_EQ(op_info("MatMul").method, "matmul");
  EXPECT_EQ(op_info("GatherND").method, "gather_nd");
  EXPECT_TRUE(op_info("AllReduce").collective);
  EXPECT_TRUE(op_info("Concat").variadic);
  std::set<std::string> methods;
  for (const OpInfo& op : list_ops()) EXPECT_TRUE(methods.insert(op.method).second) << op.method;
  EXPECT_EQ(methods.size(), all_ops().all().size());
}

}  // namespace
}  // namespace tandem
