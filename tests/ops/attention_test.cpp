// Attention and rotary embedding. Literal values are those of onnx.reference, which also sees the causal and empty-row rules.
#include <cmath>
#include <limits>

#include "ops/op_test.h"

namespace tandem::testing {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();

using Operands = std::vector<std::optional<Tensor>>;

NamedAttributes with(std::string causal, double scale = 1, std::string empty_rows = "zero") {
  return {{"causal", std::move(causal)}, {"scale", scale}, {"empty_rows", std::move(empty_rows)}};
}

// The same by the textbook: every score, every rule as a predicate on (b, h, i, j), weights, sum.
template <typename Allowed>
std::vector<double> textbook(const Tensor& q, const Tensor& k, const Tensor& v, double scale, Allowed allowed) {
  const auto B = q.shape()[0], H = q.shape()[1], S = q.shape()[2], D = q.shape()[3], K = k.shape()[1], T = k.shape()[2], E = v.shape()[3];
  std::vector<double> out;
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t h = 0; h < H; ++h)
      for (std::int64_t i = 0; i < S; ++i)
        for (std::int64_t e = 0; e < E; ++e) {
          double weights = 0, sum = 0;
          for (std::int64_t j = 0; j < T; ++j) {
            double s = 0;
            for (std::int64_t d = 0; d < D; ++d) s += q.at(((b * H + h) * S + i) * D + d) * k.at(((b * K + h * K / H) * T + j) * D + d);
            const double w = allowed(b, h, i, j) ? std::exp(s * scale) : 0;
            weights += w;
            sum += w * v.at(((b * K + h * K / H) * T + j) * E + e);
          }
          out.push_back(weights == 0 ? 0 : sum / weights);
        }
  return out;
}

TEST(Attention, GroupedHeadsOfOtherValueSize) {
  const Tensor q = waves(1, {2, 6, 3, 4}), k = waves(2, {2, 2, 5, 4}), v = waves(3, {2, 2, 5, 3});
  const Tensor y = evaluate(ops::Attention, {q, k, v}, with("none", 0.7));
  EXPECT_EQ(y.shape(), (Shape{2, 6, 3, 3}));
  expect_near(y, textbook(q, k, v, 0.7, [](auto...) { return true; }));
}

TEST(Attention, CausalKinds) {
  const Tensor q = waves(1, {1, 2, 3, 4}), k = waves(2, {1, 2, 5, 4}), v = waves(3, {1, 2, 5, 4});
  const auto limited = [&](std::int64_t shift) {
    return textbook(q, k, v, 0.5, [shift](auto, auto, std::int64_t i, std::int64_t j) { return j <= i + shift; });
  };
  expect_near(evaluate(ops::Attention, {q, k, v}, with("upper_left", 0.5)), limited(0));
  expect_near(evaluate(ops::Attention, {q, k, v}, with("lower_right", 0.5)), limited(2));
  const Operands offset = {q, k, v, std::nullopt, std::nullopt, std::nullopt, ints({}, {1})};
  expect_near(evaluate(ops::Attention, offset, with("offset", 0.5)), limited(1));
  // More rows than columns: the first rows attend to nothing.
  const Tensor y = evaluate(ops::Attention, {k, q, q}, with("lower_right"));
  EXPECT_EQ(y.at(0), 0);
  EXPECT_NE(y.at(2 * 4), 0);
  EXPECT_TRUE(std::isnan(evaluate(ops::Attention, {k, q, q}, with("lower_right", 1, "nan")).at(0)));
}

TEST(Attention, MasksComposeWithCausalAndLengths) {
  const Tensor q = waves(1, {2, 4, 3, 2}), k = waves(2, {2, 2, 4, 2}), v = waves(3, {2, 2, 4, 2});
  const Tensor mask = ints({2, 1, 1, 4}, {1, 0, 1, 1, 1, 1, 0, 1}, DType::boolean);
  const Operands operands = {q, k, v, mask, ints({2}, {2, 3}), ints({2}, {4, 3}, DType::i32)};
  const auto allowed = [&](std::int64_t b, auto, std::int64_t i, std::int64_t j) {
    const bool row = i < (b == 0 ? 2 : 3), column = j < (b == 0 ? 4 : 3);
    return row && column && j <= i + 1 && mask.int_at(b * 4 + j) != 0;
  };
  expect_near(evaluate(ops::Attention, operands, with("lower_right", 2)), textbook(q, k, v, 2, allowed));
}

TEST(Attention, AdditiveMaskPerHead) {
  const Tensor q = waves(1, {1, 4, 3, 2}), k = waves(2, {1, 2, 3, 2}), v = waves(3, {1, 2, 3, 2});
  expect_near(
      evaluate(ops::Attention, {q, k, v, waves(4, {4, 3, 3})}, with("upper_left", std::sqrt(0.5))),
      {0.14112,  -0.529836, -0.427983, -0.736066, -0.58532, -0.487175, 0.14112,  -0.529836, -0.315524, -0.695314, -0.026716, -0.550501,
       0.793668, 0.998941,  0.767825,  0.617651,  0.598771, 0.479361,  0.793668, 0.998941,  0.748599,  0.333997,  0.436335,  0.337833});
}

TEST(Attention, MasksThatExcludeEverything) {
  const Tensor q = waves(1, {1, 1, 1, 2}), k = waves(2, {1, 1, 2, 2}), v = numbers({1, 1, 2, 1}, {2, 4});
  const Tensor infinite = numbers({1, 2}, {-kInf, -kInf}), lowest = numbers({1, 2}, {-3.4e38, -3.4e38});
  expect_near(evaluate(ops::Attention, {q, k, v, infinite}), {0});
  expect_near(evaluate(ops::Attention, {q, k, v, infinite}, with("none", 1, "nan")), {kNan});
  expect_near(evaluate(ops::Attention, {q, k, v, lowest}), {3});  // a finite mask keeps the mean
  expect_near(evaluate(ops::Attention, {q, k, v, ints({2}, {0, 0}, DType::boolean)}), {0});
  // No key at all.
  expect_near(evaluate(ops::Attention, {q, waves(2, {1, 1, 0, 2}), waves(2, {1, 1, 0, 1})}), {0});
}

TEST(Attention, PaddingMayHoldNan) {
  const Tensor q = waves(1, {1, 1, 1, 2}), k = numbers({1, 1, 2, 2}, {1, 2, kNan, kNan}), v = numbers({1, 1, 2, 1}, {5, kNan});
  expect_near(evaluate(ops::Attention, {q, k, v, std::nullopt, std::nullopt, ints({1}, {1})}), {5});
  const Tensor finite = numbers({1, 1, 2, 2}, {1, 2, 3, 4});
  expect_near(evaluate(ops::Attention, {q, finite, v, ints({2}, {1, 0}, DType::boolean)}), {5});
  expect_near(evaluate(ops::Attention, {q, k, v}), {kNan});
}

TEST(Attention, InferenceErrors) {
  const auto f32 = [](const char* dims) { return std::optional(type_of(DType::f32, dims)); };
  const auto q = f32("B,4,S,8"), k = f32("B,2,T,8");
  EXPECT_EQ(infer(ops::Attention, {q, k, f32("B,2,T,6")}), (std::vector<Type>{*f32("B,4,S,6")}));
  const auto refused = [&](const char* part, std::vector<std::optional<Type>> operands, NamedAttributes attributes = {}) {
    expect_error(ErrorCode::invalid_model, part, [&] { infer(ops::Attention, operands, attributes); });
  };
  refused("4 query heads are no multiple of 3", {q, f32("B,3,T,8"), f32("B,3,T,8")});
  refused("must be the head size 8", {q, f32("B,2,T,4"), k});
  refused("must be the number of kv heads 2", {q, k, f32("B,4,T,8")});
  refused("must be the number of keys", {q, k, f32("B,2,T+1,8")});
  refused("expected rank 4", {f32("B,S,8"), k, k});
  refused("is f16, expected f32", {q, type_of(DType::f16, "B,2,T,8"), k});
  refused("does not broadcast", {q, k, k, f32("3,S,T")});
  refused("expected bool or a float", {q, k, k, type_of(DType::i64, "S,T")});
  refused("need each other", {q, k, k}, {{"causal", std::string("offset")}});
  refused("need each other", {q, k, k, {}, {}, {}, type_of(DType::i64, "")});
  refused("num_ranks is 0", {q, k, k}, {{"num_ranks", std::int64_t{0}}});
  // Ranks hold parts of the keys, but all columns of the mask.
  EXPECT_NO_THROW(infer(ops::Attention, {f32("1,4,2,8"), f32("1,2,2,8"), f32("1,2,2,8"), f32("2,8")}, {{"num_ranks", std::int64_t{4}}}));
  expect_error(ErrorCode::internal, "one device", [&] {
    evaluate(ops::Attention, {waves(1, {1, 1, 1, 2}), waves(1, {1, 1, 1, 2}), waves(1, {1, 1, 1, 2})}, {{"num_ranks", std::int64_t{2}}});
  });
}

TEST(Attention, Rule) {
  const auto f32 = [](const char* dims) { return std::optional(type_of(DType::f32, dims)); };
  EXPECT_EQ(rule_text(ops::Attention, {f32("B,4,S,8"), f32("B,2,T,8"), f32("B,2,T,6")}), "a fg b d!, a f c! d!, a f c! e! -> a fg b e!");
  EXPECT_EQ(rule_text(ops::Attention,
                      {f32("B,4,S,8"), f32("B,4,T,8"), f32("B,4,T,8"), type_of(DType::boolean, "B,1,S,T"), {}, type_of(DType::i64, "B")}),
            "a f b d!, a f c! d!, a f c! e!, a 1 b c!, , a -> a f b e!");
  EXPECT_EQ(rule_text(ops::Attention, {f32("B,4,S,8"), f32("B,1,T,8"), f32("B,1,T,8"), f32("4,S,T")}),
            "a f b d!, a 1 c! d!, a 1 c! e!, f b c! -> a f b e!");
}

const std::vector<double> kGroupedCausal = {0.14112,   -0.529836, -0.247836, -0.670785, -0.595959, -0.311077, 0.14112,  -0.529836,
                                            -0.151539, -0.635889, -0.118295, -0.517188, 0.793668,  0.998941,  0.776892, 0.751423,
                                            0.394485,  0.16024,   0.793668,  0.998941,  0.756982,  0.457676,  0.126582, -0.109328};

Imported attention(int opset = 23) { return Imported("Attention", opset); }

TEST(AttentionImport, FourDimensions) {
  Imported causal = attention();
  causal.input(waves(1, {1, 4, 3, 2})).input(waves(2, {1, 2, 3, 2})).input(waves(3, {1, 2, 3, 2})).with("is_causal", std::int64_t{1});
  expect_near(causal.evaluate(), kGroupedCausal);
  EXPECT_EQ(causal.find("Attention")->attributes.text("causal"), "upper_left");

  Imported capped = attention();
  capped.input(waves(1, {1, 4, 3, 2})).input(waves(2, {1, 2, 3, 2})).input(waves(3, {1, 2, 3, 2}));
  capped.constant(ints({3, 3}, {1, 0, 1, 0, 1, 1, 0, 0, 0}, DType::boolean)).with("softcap", 0.5).with("scale", 2.0);
  expect_near(capped.evaluate(), {-0.021793, -0.329475, -0.727187, -0.400059, 0, 0, -0.301632, 0.014689, -0.708264, -0.355727, 0, 0,
                                  -0.116854, -0.332157, 0.028624,  -0.47238,  0, 0, 0.229815,  0.174641, 0.127259,  -0.38897,  0, 0});
}

TEST(AttentionImport, ThreeDimensions) {
  Imported program = attention();
  program.input(waves(1, {1, 3, 8})).input(waves(2, {1, 3, 4})).input(waves(3, {1, 3, 4}));
  program.with("q_num_heads", std::int64_t{4}).with("kv_num_heads", std::int64_t{2});
  const Tensor y = program.evaluate();
  EXPECT_EQ(y.shape(), (Shape{1, 3, 8}));
  expect_near(y, {0.438014, -0.123079, 0.29855,  -0.13005,  -0.509092, -0.569895, -0.35111,  -0.388595,
                  0.364294, -0.108411, 0.41723,  -0.136161, -0.408675, -0.490467, -0.493349, -0.538692,
                  0.110471, -0.037302, 0.438865, -0.12358,  -0.239519, -0.330082, -0.511332, -0.571182});
  Imported headless = attention();
  headless.input(waves(1, {1, 3, 8})).input(waves(2, {1, 3, 8})).input(waves(3, {1, 3, 8}));
  expect_error(ErrorCode::invalid_model, "does not consist of 0 heads", [&] { headless.run_rule(); });
}

TEST(AttentionImport, PastIsJoinedAndShiftsTheCausalLimit) {
  Imported program = attention();
  program.input(waves(1, {1, 4, 3, 2})).input(waves(2, {1, 2, 3, 2})).input(waves(3, {1, 2, 3, 2})).absent();
  program.input(waves(5, {1, 2, 2, 2})).input(waves(6, {1, 2, 2, 2})).with("is_causal", std::int64_t{1});
  expect_near(program.evaluate(), {0.406699, 0.147129,  0.047269, -0.079591, -0.395048, -0.012014, 0.050969,  0.393079,
                                   0.217104, 0.093747,  0.170446, -0.006344, 0.063252,  -0.185699, 0.074716,  -0.153085,
                                   0.236492, -0.092233, 0.443485, 0.064699,  0.39679,   -0.011411, -0.108955, -0.407651});
  EXPECT_EQ(program.find("Attention")->attributes.text("causal"), "lower_right");
  EXPECT_EQ(program.evaluate(1).shape(), (Shape{1, 2, 5, 2}));

  Imported symbolic = attention();
  symbolic.input(type_of(DType::f32, "B,4,S,8")).input(type_of(DType::f32, "B,4,S,8")).input(type_of(DType::f32, "B,4,S,8")).absent();
  symbolic.input(type_of(DType::f32, "B,4,P,8")).input(type_of(DType::f32, "B,4,P,8")).with("is_causal", std::int64_t{1});
  symbolic.run_rule();
  EXPECT_EQ(symbolic.find("Attention")->attributes.text("causal"), "lower_right");
  EXPECT_DOUBLE_EQ(symbolic.find("Attention")->attributes.real("scale"), 1 / std::sqrt(8.0));
  EXPECT_EQ(symbolic.results[1]->type, type_of(DType::f32, "B,4,P+S,8"));
  EXPECT_TRUE(symbolic.graph.constraints.empty());

  Imported cross = attention();  // other lengths of q and new k
  cross.input(waves(1, {1, 2, 2, 2})).input(waves(2, {1, 2, 3, 2})).input(waves(3, {1, 2, 3, 2})).absent();
  cross.input(waves(5, {1, 2, 1, 2})).input(waves(6, {1, 2, 1, 2})).with("is_causal", std::int64_t{1});
  EXPECT_EQ(cross.evaluate().shape(), (Shape{1, 2, 2, 2}));
  EXPECT_EQ(cross.find("Attention")->attributes.text("causal"), "offset");
}

TEST(AttentionImport, KeyLengths) {
  Imported program = attention(24);
  program.input(waves(1, {2, 2, 2, 2})).input(waves(2, {2, 2, 3, 2})).input(waves(3, {2, 2, 3, 2})).absent().absent().absent();
  program.input(ints({2}, {3, 1}));
  expect_near(program.evaluate(), {-0.092379, -0.510887, -0.29129, -0.493192, 0.12702, -0.110678, 0.268649, 0.074802, -0.919329, -0.449647,
                                   -0.919329, -0.449647, 0.107754, -0.558052, 0.107754, -0.558052});
}

TEST(AttentionImport, FilesOfShardingTools) {
  for (const char* name : {"nb_rank", "nbRanks"}) {
    Imported program = attention(17);
    for (int i = 0; i < 3; ++i) program.input(type_of(DType::f16, "B,4,S,8"));
    program.with(name, std::int64_t{4}).with("scale", 1.0).with("TRT_decomposable", std::int64_t{1}).run_rule();
    const Attributes& attributes = program.find("Attention")->attributes;
    EXPECT_EQ(attributes.integer("num_ranks"), 4);
    EXPECT_EQ(attributes.real("scale"), 1);
    EXPECT_TRUE(attributes.get<RankLists>("groups").empty());
  }
}

TEST(AttentionImport, Refusals) {
  const auto program = [](int opset = 23) {
    auto p = std::make_unique<Imported>("Attention", opset);
    for (int i = 0; i < 3; ++i) p->input(type_of(DType::f32, "B,4,S,8"));
    return p;
  };
  auto scores = program();
  scores->node.outputs = {"y", "", "", "scores"};
  expect_error(ErrorCode::unsupported, "qk_matmul_output", [&] { scores->run_rule(); });
  auto window = program(25);
  expect_error(ErrorCode::unsupported, "left_window_size", [&] { window->with("left_window_size", std::int64_t{2}).run_rule(); });
  auto half = program();
  expect_error(ErrorCode::invalid_model, "need each other", [&] { half->absent().input(type_of(DType::f32, "B,4,P,8")).run_rule(); });
  auto both = program();
  expect_error(ErrorCode::invalid_model, "nb_rank is 2 and nbRanks is 4",
               [&] { both->with("nb_rank", std::int64_t{2}).with("nbRanks", std::int64_t{4}).run_rule(); });
  auto symbolic = std::make_unique<Imported>("Attention", 23);
  for (int i = 0; i < 3; ++i) symbolic->input(type_of(DType::f32, "B,4,S,D"));
  expect_error(ErrorCode::unsupported, "default scale", [&] { symbolic->run_rule(); });
}

TEST(RotaryEmbedding, HalvesAndNeighbours) {
  const Operands operands = {waves(1, {2, 2, 2, 4}), waves(2, {2, 2, 2}), waves(3, {2, 2, 2})};
  expect_near(evaluate(ops::RotaryEmbedding, operands),
              {0.669826,  0.445849,  0.732945,  -0.507649, -0.684343, 0.45375,   0.808004,  1.210947,  0.143666,  0.714725, 0.943586,
               -0.167252, -0.939792, -0.299025, 0.227093,  1.295062,  0.756024,  -0.443321, -0.689433, -0.625761, 0.452413, 0.987629,
               0.569132,  -0.561268, 1.023381,  0.054986,  0.060906,  -0.685832, -0.074727, 1.018984,  0.781631,  0.260205});
  expect_near(evaluate(ops::RotaryEmbedding, operands, {{"interleaved", true}}),
              {0.625204,  1.020467,  0.31071,  -0.340114, -0.773865, 0.832044,  0.37677,   1.12385,   0.16327,   0.817265,  0.774097,
               -0.240858, -0.60115,  0.136155, -0.007829, 1.624528,  0.509001,  -0.159784, -0.818448, -0.511384, -0.060352, 0.515451,
               0.613917,  -1.206654, 0.704759, 0.744071,  -0.42887,  -0.538304, -0.587654, 0.727932,  0.645153,  -0.385384});
}

TEST(RotaryEmbedding, PositionsBeforeHeads) {
  const NamedAttributes swap = {{"permutation", std::vector<std::int64_t>{0, 2, 1, 3}}};
  const Tensor x = waves(1, {2, 3, 5, 6}), cos = waves(2, {2, 5, 2}), sin = waves(3, {2, 5, 2});
  const NamedAttributes first = {{"rotary_dim", std::int64_t{4}}}, last = {{"rotary_dim", std::int64_t{4}}, {"order", std::string("bshd")}};
  const Tensor expected = evaluate(ops::Transpose, {evaluate(ops::RotaryEmbedding, {x, cos, sin}, first)}, swap);
  expect_near(evaluate(ops::RotaryEmbedding, {evaluate(ops::Transpose, {x}, swap), cos, sin}, last), expected.to_doubles(), 0);
  const auto f32 = [](const char* dims) { return std::optional(type_of(DType::f32, dims)); };
  EXPECT_EQ(rule_text(ops::RotaryEmbedding, {f32("B,S,H,8"), f32("1,S,4"), f32("B,S,4")}, {{"order", std::string("bshd")}}),
            "a c b d!, 1 c e!, a c e! -> a c b d!");
}

TEST(RotaryEmbedding, InferenceAndRule) {
  const auto f32 = [](const char* dims) { return std::optional(type_of(DType::f32, dims)); };
  EXPECT_EQ(rule_text(ops::RotaryEmbedding, {f32("B,H,S,8"), f32("1,S,4"), f32("B,S,4")}), "a b c d!, 1 c e!, a c e! -> a b c d!");
  expect_error(ErrorCode::invalid_model, "expected [B or 1,S,4]", [&] {
    infer(ops::RotaryEmbedding, {f32("B,H,S,8"), f32("1,S,8"), f32("1,S,8")});
  });
  expect_error(ErrorCode::invalid_model, "even number", [&] { infer(ops::RotaryEmbedding, {f32("B,H,S,7"), f32("1,S,3"), f32("1,S,3")}); });
  expect_error(ErrorCode::invalid_model, "exceeds the head size", [&] {
    infer(ops::RotaryEmbedding, {f32("B,H,S,8"), f32("1,S,5"), f32("1,S,5")}, {{"rotary_dim", std::int64_t{10}}});
  });
}

TEST(RotaryImport, PositionsPartialRotationAndThreeDimensions) {
  Imported part("RotaryEmbedding", 23);
  part.input(waves(1, {2, 2, 2, 6})).input(waves(2, {5, 2})).input(waves(3, {5, 2})).input(ints({2, 2}, {4, 0, 1, 3}));
  part.with("rotary_embedding_dim", std::int64_t{4});
  expect_near(
      part.evaluate(),
      {0.318418, 0.889477,  1.271768,  0.16093,   -0.611858, -0.97753,  -0.847288, 0.290805,  0.158611,  0.561553,  0.989358,  0.662969,
       0.744377, -0.454967, -0.931272, -0.867601, -0.358229, 0.327474,  0.689465,  0.425946,  0.71255,   -0.519424, -0.638107, -0.984065,
       0.548305, 1.083522,  0.7375,    -0.3929,   0.983907,  0.637423,  0.784019,  0.481256,  0.074977,  -1.146983, -0.326635, 0.359058,
       0.370335, -0.826296, -0.993044, -0.887005, -0.663634, -0.989487, -0.226764, -1.062654, -0.705727, 0.200897,  0.977342,  0.611155});
  Imported flat("RotaryEmbedding", 23);
  flat.input(waves(1, {1, 2, 8})).input(waves(2, {1, 2, 2})).input(waves(3, {1, 2, 2})).with("num_heads", std::int64_t{2});
  const Tensor y = flat.evaluate();
  EXPECT_EQ(y.shape(), (Shape{1, 2, 8}));
  expect_near(y, {0.669826, 0.445849, 0.732945, -0.507649, -0.431688, -0.61587, -0.889668, 0.358143, 0.861864, -0.082106, -0.549285,
                  -1.329839, -0.939792, -0.299025, 0.227093, 1.295062});
  Imported shared("RotaryEmbedding", 23);  // exporters leave the batch out of the angles
  shared.input(type_of(DType::f32, "B,4,S,8")).input(type_of(DType::f32, "1,S,4")).input(type_of(DType::f32, "1,S,4")).run_rule();
  EXPECT_TRUE(shared.graph.constraints.empty());
}

}  // namespace
}  // namespace tandem::testing
