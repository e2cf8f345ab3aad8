// Evaluators of the layout, gather and shape families against loops over indices.
#include "ops/op_test.h"

namespace tandem::testing {
namespace {

using Index = std::vector<std::int64_t>;

// What f says for every index of a shape, row-major.
std::vector<double> expected(const Shape& shape, const std::function<double(const Index&)>& f) {
  std::vector<double> values;
  Index index(shape.size(), 0);
  for (std::int64_t n = 0; n < element_count(shape); ++n) {
    std::int64_t rest = n;
    for (std::size_t d = shape.size(); d-- > 0; rest /= shape[d]) index[d] = rest % shape[d];
    values.push_back(f(index));
  }
  return values;
}

double at(const Tensor& t, const Index& index) {
  std::int64_t n = 0;
  for (std::size_t d = 0; d < index.size(); ++d) n = n * t.shape()[d] + index[d];
  return t.at(n);
}

void expect_same(const Tensor& got, const Shape& shape, const std::function<double(const Index&)>& f) {
  ASSERT_EQ(got.shape(), shape);
  expect_near(got, expected(shape, f), 0);
}

std::vector<Dim> dims(std::vector<std::int64_t> values) { return {values.begin(), values.end()}; }

TEST(Transpose, ReordersDimensionsOfAnyElementSize) {
  for (const DType dtype : {DType::f32, DType::f16, DType::i64, DType::u8, DType::i4}) {
    const Tensor x = is_float(dtype) ? waves(0, {2, 3, 4}, dtype)
                                     : ints({2, 3, 4}, {0, 1, 2, 3, 4, 5, 6, 7, 7, 6, 5, 4, 3, 2, 1, 0, 1, 3, 5, 7, 2, 4, 6, 0}, dtype);
    const Tensor y = evaluate(ops::Transpose, {x}, {{"permutation", Index{2, 0, 1}}});
    expect_same(y, {4, 2, 3}, [&](const Index& i) { return at(x, {i[1], i[2], i[0]}); });
  }
}

TEST(Concat, JoinsAlongAMiddleAxisAlsoEmptyParts) {
  const Tensor a = waves(0, {2, 3, 2}), none = waves(0, {2, 0, 2}), b = waves(1, {2, 1, 2});
  const Tensor y = evaluate(ops::Concat, {a, none, b}, {{"axis", std::int64_t{1}}});
  expect_same(y, {2, 4, 2}, [&](const Index& i) { return i[1] < 3 ? at(a, i) : at(b, {i[0], i[1] - 3, i[2]}); });
}

TEST(Slice, StepsForwardsAndBackwards) {
  const Tensor x = waves(0, {3, 7, 5});
  const Tensor y =
      evaluate(ops::Slice, {x}, {{"starts", dims({1, 4})}, {"ends", dims({6, -1})}, {"axes", Index{1, 2}}, {"steps", Index{2, -3}}});
  expect_same(y, {3, 3, 2}, [&](const Index& i) { return at(x, {i[0], 1 + 2 * i[1], 4 - 3 * i[2]}); });
  expect_error(ErrorCode::invalid_model, "inside extent 7", [&] {
    evaluate(ops::Slice, {x}, {{"starts", dims({1})}, {"ends", dims({8})}, {"axes", Index{1}}});
  });
}

TEST(Expand, RepeatsAndAddsLeadingDimensions) {
  const Tensor x = waves(0, {3, 1});
  expect_same(evaluate(ops::Expand, {x}, {{"shape", dims({2, 3, 4})}}), {2, 3, 4}, [&](const Index& i) { return at(x, {i[1], 0}); });
}

TEST(Reshape, KeepsTheOrder) {
  const Tensor x = waves(0, {2, 6});
  expect_near(evaluate(ops::Reshape, {x}, {{"shape", dims({3, 1, 4})}}), x.to_doubles(), 0);
  expect_error(ErrorCode::invalid_model, "numbers of elements differ", [&] { evaluate(ops::Reshape, {x}, {{"shape", dims({5})}}); });
}

TEST(Pad, FillsMirrorsOrRepeats) {
  const Tensor x = waves(0, {3, 4});
  const auto padded = [&](const std::string& mode) {
    return evaluate(ops::Pad, {x}, {{"pads", dims({1, 2, 0, 3})}, {"mode", mode}, {"value", 9.0}});
  };
  expect_same(padded("constant"), {4, 9}, [&](const Index& i) {
    return i[0] < 1 || i[1] < 2 || i[1] >= 6 ? 9.0 : at(x, {i[0] - 1, i[1] - 2});
  });
  const auto mirrored = [](std::int64_t i, std::int64_t n) { return i < 0 ? -i : i >= n ? 2 * n - 2 - i : i; };
  expect_same(padded("reflect"), {4, 9}, [&](const Index& i) { return at(x, {mirrored(i[0] - 1, 3), mirrored(i[1] - 2, 4)}); });
  const auto clamped = [](std::int64_t i, std::int64_t n) { return std::min(std::max<std::int64_t>(i, 0), n - 1); };
  expect_same(padded("edge"), {4, 9}, [&](const Index& i) { return at(x, {clamped(i[0] - 1, 3), clamped(i[1] - 2, 4)}); });
}

TEST(Trilu, KeepsOneSideOfADiagonal) {
  const Tensor x = waves(2, {2, 3, 4});
  for (const std::int64_t k : {-1, 0, 2})
    for (const bool upper : {true, false})
      expect_same(evaluate(ops::Trilu, {x}, {{"upper", upper}, {"k", Dim(k)}}), {2, 3, 4}, [&](const Index& i) {
        const std::int64_t distance = i[2] - i[1];
        return (upper ? distance >= k : distance <= k) ? at(x, i) : 0.0;
      });
}

TEST(Gather, TakesRowsAndCountsNegativeOnesFromTheEnd) {
  const Tensor x = waves(0, {2, 5, 3}), rows = ints({2, 2}, {4, -1, 0, -5}, DType::i32);
  const std::int64_t front[] = {4, 4, 0, 0};
  expect_same(evaluate(ops::Gather, {x, rows}, {{"axis", std::int64_t{-2}}}), {2, 2, 2, 3}, [&](const Index& i) {
    return at(x, {i[0], front[i[1] * 2 + i[2]], i[3]});
  });
  for (const std::int64_t outside : {5, -6})
    expect_error(ErrorCode::invalid_argument, "outside extent 5", [&] {
      evaluate(ops::Gather, {x, ints({}, {outside})}, {{"axis", std::int64_t{1}}});
    });
}

TEST(Gather, OfABlockOfATableGivesZerosElsewhere) {
  const Tensor block = waves(1, {3, 2}), rows = ints({5}, {2, 3, 5, 6, -3});
  const NamedAttributes part = {{"base", Dim(3)}, {"whole", Dim(8)}};
  expect_same(evaluate(ops::Gather, {block, rows}, part), {5, 2}, [&](const Index& i) {
    const std::int64_t row = (rows.int_at(i[0]) + 8) % 8 - 3;
    return row >= 0 && row < 3 ? at(block, {row, i[1]}) : 0.0;
  });
  expect_error(ErrorCode::invalid_argument, "outside extent 8", [&] { evaluate(ops::Gather, {block, ints({}, {8})}, part); });
}

TEST(GatherElements, ReplacesOnePosition) {
  const Tensor x = waves(0, {3, 4}), rows = ints({2, 4}, {0, 2, -1, 1, 2, 2, 0, -3});
  expect_same(evaluate(ops::GatherElements, {x, rows}, {{"axis", std::int64_t{0}}}), {2, 4}, [&](const Index& i) {
    const auto row = static_cast<std::int64_t>(at(rows, i));
    return at(x, {row < 0 ? row + 3 : row, i[1]});
  });
}

TEST(GatherND, NamesLeadingPositionsAfterTheBatch) {
  const Tensor x = waves(0, {2, 3, 4, 2}), pairs = ints({3, 2}, {0, 2, 1, -1, -2, 0}), single = ints({2, 2, 1}, {2, 0, -1, 1});
  expect_same(evaluate(ops::GatherND, {x, pairs}), {3, 4, 2}, [&](const Index& i) {
    const std::int64_t a = pairs.int_at(i[0] * 2), b = pairs.int_at(i[0] * 2 + 1);
    return at(x, {a < 0 ? a + 2 : a, b < 0 ? b + 3 : b, i[1], i[2]});
  });
  expect_same(evaluate(ops::GatherND, {x, single}, {{"batch_dims", std::int64_t{1}}}), {2, 2, 4, 2}, [&](const Index& i) {
    const std::int64_t row = single.int_at(i[0] * 2 + i[1]);
    return at(x, {i[0], row < 0 ? row + 3 : row, i[2], i[3]});
  });
}

TEST(ScatterND, ReplacesOrCombinesInOrder) {
  const Tensor x = waves(0, {4, 2}), rows = ints({3, 1}, {1, -1, 1}), updates = waves(3, {3, 2});
  const auto combine = [](const std::string& how, double a, double b) {
    return how == "none" ? b : how == "add" ? a + b : how == "mul" ? a * b : how == "max" ? std::max(a, b) : std::min(a, b);
  };
  for (const std::string how : {"none", "add", "mul", "max", "min"}) {
    std::vector<double> values = x.to_doubles();
    for (const auto& [update, row] : std::vector<std::pair<std::size_t, std::size_t>>{{0, 1}, {1, 3}, {2, 1}})
      for (std::size_t i = 0; i < 2; ++i)
        values[row * 2 + i] = static_cast<float>(combine(how, values[row * 2 + i], updates.at(static_cast<std::int64_t>(update * 2 + i))));
    expect_near(evaluate(ops::ScatterND, {x, rows, updates}, {{"reduction", how}}), values, 0);
  }
}

TEST(Shapes, IotaDimValueAndConstant) {
  expect_near(evaluate(ops::Iota, {}, {{"offset", Dim(3)}, {"extent", Dim(4)}, {"dtype", DType::i32}}), {3, 4, 5, 6}, 0);
  const Tensor values = evaluate(ops::DimValue, {}, {{"values", dims({7, -2})}, {"shape", Index{1, 2}}});
  expect_near(values, {7, -2}, 0);
  expect_near(evaluate(ops::Constant, {}, {{"value", numbers({2}, {1.5, 2})}}), {1.5, 2}, 0);
  expect_error(ErrorCode::invalid_model, "do not fill", [&] { evaluate(ops::DimValue, {}, {{"values", dims({7})}, {"shape", Index{2}}}); });
}

TEST(Folds, FollowContents) {
  EXPECT_EQ(folded(ops::Concat, {"S,4", "B"}, {{"axis", std::int64_t{0}}}), "S,4,B");
  EXPECT_EQ(folded(ops::Gather, {"B,S,4", "1,-1"}), "S,4");
  EXPECT_EQ(folded(ops::Gather, {"B,S", "B"}), "?");
  EXPECT_EQ(folded(ops::Slice, {"B,S,4"}, {{"starts", dims({2})}, {"ends", dims({-1})}, {"axes", Index{0}}, {"steps", Index{-2}}}), "4,B");
  EXPECT_EQ(folded(ops::Reshape, {"B,S"}, {{"shape", dims({2, 1})}}), "B,S");
  EXPECT_EQ(folded(ops::Expand, {"S"}, {{"shape", dims({3})}}), "S,S,S");
  EXPECT_EQ(folded(ops::Iota, {}, {{"offset", Dim::symbol("S")}, {"extent", Dim(3)}}), "S,S+1,S+2");
}

}  // namespace
}  // namespace tandem::testing
