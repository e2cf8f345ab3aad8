// Convolutions and what slides windows. Expected values are plain loops or written by hand.
#include <fmt/ranges.h>

#include <array>
#include <cmath>
#include <limits>

#include "ops/op_test.h"

namespace tandem::testing {
namespace {

using Ints = std::vector<std::int64_t>;
using Dims = std::vector<Dim>;

Type f32(const char* dims) { return type_of(DType::f32, dims); }

TEST(Conv, Values) {
  const Tensor x = numbers({1, 1, 3, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9}), w = numbers({1, 1, 2, 2}, {1, 10, 100, 1000});
  expect_near(evaluate(ops::Conv, {x, w}), {5421, 6532, 8754, 9865});
  expect_near(evaluate(ops::Conv, {x, w}, {{"strides", Ints{2, 2}}, {"pads", Dims{1, 1, 0, 0}}}), {1000, 3200, 7040, 9865});
  expect_near(evaluate(ops::Conv, {x, w}, {{"dilations", Ints{2, 2}}}), {9731});
  expect_near(evaluate(ops::Conv, {x, w, numbers({1}, {-9000})}, {{"activation", std::string("relu")}}), {0, 0, 0, 865});
  expect_near(
      evaluate(ops::Conv, {x, w, numbers({1, 1, 1}, {1}), numbers({1, 1, 2, 2}, {-1, -6543, 0, 5})}, {{"activation", std::string("relu")}}),
      {5421, 0, 8755, 9871});
}

TEST(Conv, GroupsOneAndThreeDimensions) {
  expect_near(evaluate(ops::Conv, {numbers({1, 2, 3}, {1, 2, 3, 4, 5, 6}), numbers({4, 1, 2}, {1, 0, 0, 1, 1, 1, 1, -1})}),
              {1, 2, 2, 3, 9, 11, -1, -1});
  const Tensor y = evaluate(ops::Conv, {waves(1, {1, 1, 2, 2, 2}), waves(2, {1, 1, 2, 2, 2})});
  double sum = 0;
  for (int i = 0; i < 8; ++i) sum += waves(1, {8}).at(i) * waves(2, {8}).at(i);
  expect_near(y, {sum});
}

TEST(Conv, Inference) {
  EXPECT_EQ(infer(ops::Conv, {f32("B,3,H,W"), f32("8,3,3,3")}, {{"pads", Dims{1, 1, 1, 1}}})[0], f32("B,8,H,W"));
  EXPECT_EQ(infer(ops::Conv, {f32("B,3,224,W"), f32("8,3,7,7")}, {{"pads", Dims{3, 3, 3, 3}}, {"strides", Ints{2, 2}}})[0].to_string(),
            Type({DType::f32, {Dim::symbol("B"), 8, 112, floor_div(Dim::symbol("W") - 1, 2) + 1}}).to_string());
  EXPECT_EQ(infer(ops::Conv, {f32("B,8,L"), f32("8,1,1")})[0], f32("B,8,L"));
  const auto refused = [](const char* part, std::vector<std::optional<Type>> types, const NamedAttributes& attributes = {}) {
    expect_error(ErrorCode::invalid_model, part, [&] { infer(ops::Conv, types, attributes); });
  };
  refused("does not fit", {f32("B,3,4,4"), f32("8,3,5,5")});
  refused("no multiple", {f32("B,4,9,9"), f32("8,3,3,3")});
  refused("do not divide into 2 groups", {f32("B,4,9,9"), f32("7,2,3,3")});
  refused("the bias is", {f32("B,3,9,9"), f32("8,3,3,3"), f32("7")});
  refused("the bias is", {f32("B,3,9,9"), f32("8,3,3,3"), f32("1,8,1")});
  refused("residual and result", {f32("B,3,9,9"), f32("8,3,3,3"), std::nullopt, f32("B,8,9,9")});
  refused("expected rank 4", {f32("B,3,9,9"), f32("8,3,3")});
  refused("expected rank 3 to 5", {f32("B,3"), f32("8,3")});
  refused("not positive", {f32("B,3,9,9"), f32("8,3,3,3")}, {{"strides", Ints{1, 0}}});
  refused("2 pads", {f32("B,3,9,9"), f32("8,3,3,3")}, {{"pads", Dims{1, 1}}});
  refused("negative", {f32("B,3,9,9"), f32("8,3,3,3")}, {{"pads", Dims{1, 1, -1, 0}}});
  refused("expected a float", {type_of(DType::i32, "B,3,9"), type_of(DType::i32, "8,3,3")});
  expect_error(ErrorCode::unsupported, "expected a number", [&] { infer(ops::Conv, {f32("B,C,9,9"), f32("8,3,3,3")}); });
}

TEST(Conv, Rule) {
  EXPECT_EQ(rule_text(ops::Conv, {f32("B,4,H,W"), f32("8,4,1,1")}), "a b+sum d! g!, c b+sum e! h! -> a c f! i!");
  EXPECT_EQ(rule_text(ops::Conv, {f32("B,4,L"), f32("8,4,1"), f32("8,1"), f32("B,8,L")}), "a b! d!, c b! e!, c 1, a c f! -> a c f!");
  EXPECT_EQ(rule_text(ops::Conv, {f32("B,4,L"), f32("8,2,1")}), "a bc+sum e!, bd c+sum f! -> a bd g!");
  EXPECT_EQ(rule_text(ops::Conv, {f32("B,4,L"), f32("4,1,1")}), "a b d!, bc 1 e! -> a bc f!");
}

TEST(ConvImport, PaddingGroupsAndBias) {
  Imported conv("Conv", 11);
  conv.input(numbers({1, 1, 4}, {1, 2, 3, 4})).constant(numbers({1, 1, 3}, {1, 10, 100})).constant(numbers({1}, {0.5}));
  conv.with("auto_pad", std::string("SAME_LOWER")).with("strides", Ints{2});
  expect_near(conv.evaluate(), {210.5, 432.5});
  Imported upper("Conv", 11);
  upper.input(f32("B,4,H,W")).input(f32("6,2,3,3")).with("group", std::int64_t{2}).with("auto_pad", std::string("SAME_UPPER"));
  EXPECT_EQ(upper.run_rule(), (std::vector<std::string>{"Conv"}));
  EXPECT_EQ(upper.results[0]->type, f32("B,6,H,W"));
  Imported wrong("Conv", 11);
  wrong.input(f32("B,4,H,W")).input(f32("6,2,3,3"));
  expect_error(ErrorCode::invalid_model, "1 groups of the weight's 2 need 2", [&] { wrong.run_rule(); });
  Imported other("Conv", 11);
  other.input(f32("B,4,H,W")).input(f32("6,4,3,3")).with("kernel_shape", Ints{3, 2});
  expect_error(ErrorCode::invalid_model, "kernel_shape", [&] { other.run_rule(); });
}

struct Transposed {
  Shape x, w;  // w: [c, m/groups, taps…]
  Ints strides, dilations, pads, past;
  std::int64_t groups = 1;
};

// Three indices of a number, row-major.
std::array<std::int64_t, 3> split(std::int64_t at, const std::array<std::int64_t, 3>& extents) {
  return {at / extents[2] / extents[1], at / extents[2] % extents[1], at % extents[2]};
}

// Each element of x is scattered over the result.
std::vector<double> scattered(const Transposed& c, const Tensor& x, const Tensor& w) {
  const std::size_t spatial = c.x.size() - 2;
  std::array<std::int64_t, 3> in = {1, 1, 1}, taps = in, out = in, stride = in, dilation = in, before = {};
  for (std::size_t i = 0; i < spatial; ++i) {
    const std::size_t d = i + 3 - spatial;
    in[d] = c.x[i + 2], taps[d] = c.w[i + 2], stride[d] = c.strides[i], dilation[d] = c.dilations[i], before[d] = c.pads[i];
    out[d] = (in[d] - 1) * stride[d] + (taps[d] - 1) * dilation[d] + 1 + c.past[i] - c.pads[i] - c.pads[i + spatial];
  }
  const std::int64_t in_count = in[0] * in[1] * in[2], tap_count = taps[0] * taps[1] * taps[2], out_count = out[0] * out[1] * out[2];
  const std::int64_t channels = c.x[1], each_in = channels / c.groups, each_out = c.w[1];
  std::vector<double> y(static_cast<std::size_t>(c.x[0] * c.groups * each_out * out_count), 0.0);
  for (std::int64_t i = 0; i < x.count(); ++i)
    for (std::int64_t m = 0; m < each_out; ++m)
      for (std::int64_t t = 0; t < tap_count; ++t) {
        const std::int64_t channel = i / in_count % channels, image = i / in_count / channels;
        const auto from = split(i % in_count, in), tap = split(t, taps);
        std::array<std::int64_t, 3> o{};
        bool inside = true;
        for (std::size_t d = 0; d < 3; ++d) {
          o[d] = from[d] * stride[d] + tap[d] * dilation[d] - before[d];
          inside = inside && o[d] >= 0 && o[d] < out[d];
        }
        const std::int64_t row = (image * c.groups + channel / each_in) * each_out + m;
        if (inside)
          y[static_cast<std::size_t>(row * out_count + (o[0] * out[1] + o[1]) * out[2] + o[2])] +=
              x.at(i) * w.at((channel * each_out + m) * tap_count + t);
      }
  return y;
}

TEST(ConvTransposeImport, ScattersRows) {
  const Transposed cases[] = {
      {{1, 1, 3}, {1, 1, 3}, {1}, {1}, {0, 0}, {0}},
      {{2, 3, 4}, {3, 2, 4}, {2}, {1}, {1, 1}, {0}},
      {{1, 2, 4}, {2, 3, 3}, {2}, {1}, {0, 0}, {1}},
      {{1, 2, 5}, {2, 2, 2}, {3}, {1}, {0, 1}, {2}},
      {{1, 2, 5}, {2, 2, 3}, {2}, {3}, {2, 1}, {0}},
      {{1, 2, 6}, {2, 1, 3}, {1}, {2}, {4, 3}, {0}},
      {{1, 1, 6}, {1, 1, 5}, {2}, {1}, {5, 4}, {0}},
      {{2, 4, 3, 5}, {4, 3, 3, 2}, {2, 3}, {1, 2}, {1, 0, 0, 2}, {1, 0}, 2},
      {{1, 3, 2, 2}, {3, 1, 1, 4}, {3, 2}, {1, 1}, {0, 1, 0, 1}, {0, 0}, 3},
      {{1, 2, 2, 3, 2}, {2, 2, 2, 3, 1}, {2, 1, 2}, {1, 1, 1}, {0, 1, 0, 1, 1, 0}, {0, 0, 1}},
  };
  for (const Transposed& c : cases) {
    SCOPED_TRACE(fmt::format("{} {} {} {}", c.x, c.w, c.strides, c.pads));
    Imported node("ConvTranspose", 11);
    node.input(waves(1, c.x))
        .input(waves(2, c.w))
        .with("strides", c.strides)
        .with("dilations", c.dilations)
        .with("pads", c.pads)
        .with("output_padding", c.past);
    const Tensor y = node.with("group", c.groups).evaluate();
    expect_near(y, scattered(c, waves(1, c.x), waves(2, c.w)), 1e-5);
  }
}

TEST(ConvTransposeImport, ShapesAndErrors) {
  Imported shape("ConvTranspose", 11);  // more rows than there are
  shape.input(numbers({1, 1, 2}, {1, 2})).constant(numbers({1, 1, 2}, {10, 1})).constant(numbers({1}, {0.5}));
  expect_near(shape.with("strides", Ints{2}).with("output_shape", Ints{6}).evaluate(), {10.5, 1.5, 20.5, 2.5, 0.5, 0.5});
  for (const char* automatic : {"SAME_UPPER", "SAME_LOWER"}) {
    Imported same("ConvTranspose", 11);
    same.input(f32("B,4,H,W")).input(f32("4,6,3,3")).with("strides", Ints{2, 2}).with("auto_pad", std::string(automatic));
    same.run_rule();
    EXPECT_EQ(same.results[0]->type, Type({DType::f32, {Dim::symbol("B"), 6, Dim::symbol("H") * 2, Dim::symbol("W") * 2}}));
    Imported few("ConvTranspose", 11);
    few.input(numbers({1, 1, 2}, {1, 2}))
        .constant(numbers({1, 1, 3}, {100, 10, 1}))
        .with("strides", Ints{2})
        .with("auto_pad", std::string(automatic));
    expect_near(few.evaluate(),
                std::string_view(automatic) == "SAME_UPPER" ? std::vector<double>{100, 10, 201, 20} : std::vector<double>{10, 201, 20, 2});
  }
  Imported even("ConvTranspose", 11);
  even.input(f32("B,4,H,W")).input(f32("4,6,2,2")).with("strides", Ints{2, 2});
  even.run_rule();
  EXPECT_EQ(even.results[0]->type, Type({DType::f32, {Dim::symbol("B"), 6, Dim::symbol("H") * 2, Dim::symbol("W") * 2}}));
  Imported groups("ConvTranspose", 11);
  groups.input(f32("B,4,9")).input(f32("4,6,3")).with("group", std::int64_t{3});
  expect_error(ErrorCode::invalid_model, "3 groups of 4 channels", [&] { groups.run_rule(); });
  Imported none("ConvTranspose", 11);
  none.input(f32("B,4,2")).input(f32("4,6,3")).with("pads", Ints{3, 3});
  expect_error(ErrorCode::invalid_model, "would have -2 rows", [&] { none.run_rule(); });
}

NamedAttributes window(Ints kernel, Ints strides, Dims pads, bool ceil = false) {
  return {{"kernel", std::move(kernel)}, {"strides", std::move(strides)}, {"pads", std::move(pads)}, {"ceil", ceil}};
}

TEST(Pool, Values) {
  const Tensor x = numbers({1, 1, 3, 4}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  expect_near(evaluate(ops::MaxPool, {x}, window({2, 2}, {}, {})), {6, 7, 8, 10, 11, 12});
  expect_near(evaluate(ops::MaxPool, {x}, window({2, 2}, {2, 2}, {1, 1, 0, 0})), {1, 3, 9, 11});
  expect_near(evaluate(ops::MaxPool, {x}, window({2, 2}, {2, 2}, {}, true)), {6, 8, 10, 12});
  expect_near(evaluate(ops::AveragePool, {x}, window({2, 2}, {2, 2}, {1, 1, 0, 0})), {1, 2.5, 7, 8.5});
  NamedAttributes counted = window({2, 2}, {2, 2}, {1, 1, 0, 0});
  counted.emplace_back("count_padding", true);
  expect_near(evaluate(ops::AveragePool, {x}, counted), {0.25, 1.25, 3.5, 8.5});
  EXPECT_EQ(evaluate(ops::MaxPool, {ints({1, 1, 3}, {-5, 3, -128}, DType::i8)}, window({2}, {}, {})).to_ints(), (Ints{3, 3}));
}

// Windows that hang over the end are counted without what hangs beyond the padding.
TEST(Pool, TheLastWindowMayHangOver) {
  NamedAttributes counted = window({3}, {2}, {1, 1}, true);
  const Tensor x = numbers({1, 1, 4}, {1, 2, 3, 4});
  expect_near(evaluate(ops::AveragePool, {x}, counted), {1.5, 3, 4});
  counted.emplace_back("count_padding", true);
  expect_near(evaluate(ops::AveragePool, {x}, counted), {1, 3, 2});
  EXPECT_EQ(infer(ops::MaxPool, {f32("B,C,5")}, window({2}, {3}, {}, true))[0], f32("B,C,2"));
  EXPECT_EQ(infer(ops::MaxPool, {f32("B,C,3")}, window({1}, {3}, {}, true))[0], f32("B,C,1"));
}

TEST(Pool, RuleAndErrors) {
  EXPECT_EQ(rule_text(ops::MaxPool, {f32("B,C,9")}, window({2}, {}, {})), "a b c! -> a b d!");
  expect_error(ErrorCode::invalid_model, "a window of", [&] { infer(ops::MaxPool, {f32("B,C,9")}, window({2, 2}, {}, {})); });
  expect_error(ErrorCode::invalid_model, "expected a float type, i8 or u8",
               [&] { infer(ops::MaxPool, {type_of(DType::i64, "B,C,9")}, window({2}, {}, {})); });
}

TEST(PoolImport, WindowsAndWholeImages) {
  Imported largest("MaxPool", 12);
  largest.input(f32("B,3,H,W")).with("kernel_shape", Ints{3, 3}).with("strides", Ints{2, 2}).with("pads", Ints{1, 1, 1, 1});
  EXPECT_EQ(largest.run_rule(), (std::vector<std::string>{"MaxPool"}));
  Imported places("MaxPool", 12);
  places.input(f32("B,3,H,W")).with("kernel_shape", Ints{3, 3});
  places.node.outputs = {"y", "places"};
  expect_error(ErrorCode::unsupported, "output 1", [&] { places.run_rule(); });
  Imported global("GlobalAveragePool", 1);
  const Tensor mean = global.input(numbers({1, 2, 2, 2}, {1, 2, 3, 6, 0, 0, 0, 4})).evaluate();
  EXPECT_EQ(mean.shape(), (Shape{1, 2, 1, 1}));
  expect_near(mean, {3, 1});
}

TEST(GroupNorm, Values) {
  const Tensor x = numbers({1, 4, 2}, {1, 3, 5, 7, -1, 1, 10, 10});
  expect_near(evaluate(ops::GroupNorm, {x, numbers({4}, {1, 2, 1, 1}), numbers({4}, {0, 1, 0, 7})}, {{"epsilon", 0.0}}),
              {-1, 1, -1, 3, -1, 1, NAN, NAN});
  const double d = std::sqrt(5.0);
  expect_near(evaluate(ops::GroupNorm, {numbers({1, 2, 2}, {1, 3, 5, 7}), numbers({2}, {1, 1}), numbers({2}, {0, 0})},
                       {{"epsilon", 0.0}, {"group_size", std::int64_t{2}}}),
              {-3 / d, -1 / d, 1 / d, 3 / d});
  EXPECT_EQ(rule_text(ops::GroupNorm, {f32("B,8,L"), f32("8"), f32("8")}, {{"group_size", std::int64_t{4}}}),
            "a bc! d!, bc!, bc! -> a bc! d!");
  expect_error(ErrorCode::invalid_model, "groups of 3", [&] {
    infer(ops::GroupNorm, {f32("B,8,L"), f32("8"), f32("8")}, {{"group_size", std::int64_t{3}}});
  });
}

TEST(GroupNormImport, InstanceGroupAndBatch) {
  Imported instance("InstanceNormalization", 6);
  instance.input(numbers({1, 2, 2}, {1, 3, 5, 9})).constant(numbers({2}, {1, 2})).constant(numbers({2}, {0, 1})).with("epsilon", 0.0);
  expect_near(instance.evaluate(), {-1, 1, -1, 3});
  Imported old("GroupNormalization", 18);  // parameters per group
  old.input(numbers({1, 4, 1}, {1, 3, 5, 9})).constant(numbers({2}, {1, 2})).constant(numbers({2}, {0, 1}));
  old.with("epsilon", 0.0).with("num_groups", std::int64_t{2});
  expect_near(old.evaluate(), {-1, 1, -1, 3});
  Imported batch("BatchNormalization", 15);
  batch.input(numbers({1, 2, 2}, {1, 3, 5, 9}))
      .constant(numbers({2}, {1, 2}))
      .constant(numbers({2}, {0, 1}))
      .constant(numbers({2}, {1, 5}))
      .constant(numbers({2}, {4, 16}));
  batch.with("epsilon", 0.0);
  expect_near(batch.evaluate(), {0, 1, 1, 3});
}

TEST(Resize, Values) {
  const Tensor x = numbers({1, 1, 2, 2}, {1, 2, 3, 4});
  const auto resized = [&](Dims sizes, const char* mode, const char* coordinates, const char* nearest = "round_prefer_floor") {
    return evaluate(ops::Resize, {x},
                    {{"sizes", std::move(sizes)},
                     {"mode", std::string(mode)},
                     {"coordinates", std::string(coordinates)},
                     {"nearest", std::string(nearest)}});
  };
  expect_near(resized({4, 4}, "nearest", "asymmetric", "floor"), {1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4});
  expect_near(resized({2, 3}, "linear", "align_corners"), {1, 1.5, 2, 3, 3.5, 4});
  expect_near(resized({4}, "linear", "half_pixel"), {1, 1.25, 1.75, 2, 3, 3.25, 3.75, 4});
  expect_near(resized({1, 1}, "linear", "pytorch_half_pixel"), {1});
  expect_near(resized({1, 1}, "linear", "half_pixel"), {2.5});
  expect_near(resized({4}, "cubic", "asymmetric"), {1, 1.5, 2, 2.09375, 3, 3.5, 4, 4.09375});
  EXPECT_EQ(rule_text(ops::Resize, {f32("B,C,9")}, {{"sizes", Dims{3}}}), "a b c! -> a b d!");
}

TEST(ResizeImport, ScalesAndSizes) {
  Imported scales("Resize", 13);
  scales.input(f32("B,3,H,W"))
      .absent()
      .constant(numbers({4}, {1, 1, 2, 1.5}))
      .with("coordinate_transformation_mode", std::string("asymmetric"));
  EXPECT_EQ(scales.run_rule(), (std::vector<std::string>{"Resize"}));
  EXPECT_EQ(scales.results[0]->type.to_string(),
            Type({DType::f32, {Dim::symbol("B"), 3, Dim::symbol("H") * 2, floor_div(Dim::symbol("W") * 3, 2)}}).to_string());
  Imported sizes("Resize", 13);
  sizes.input(numbers({1, 1, 1, 2}, {1, 2})).absent().absent().constant(ints({4}, {1, 1, 2, 2})).with("nearest_mode", std::string("floor"));
  expect_near(sizes.evaluate(), {1, 2, 1, 2});
  Imported cropped("Resize", 13);
  cropped.input(f32("1,1,2,2"))
      .absent()
      .constant(numbers({4}, {1, 1, 2, 2}))
      .with("coordinate_transformation_mode", std::string("tf_crop_and_resize"));
  expect_error(ErrorCode::unsupported, "tf_crop_and_resize", [&] { cropped.run_rule(); });
}

TEST(EinsumImport, TranspositionsAndProducts) {
  Imported moved("Einsum", 12);
  moved.input(waves(1, {2, 3, 4})).with("equation", std::string("abc -> cab"));
  EXPECT_EQ(moved.run_rule(), (std::vector<std::string>{"Transpose"}));
  EXPECT_EQ(moved.evaluate().shape(), (Shape{4, 2, 3}));
  const Tensor a = waves(1, {2, 3, 4, 5}), b = waves(2, {3, 5, 6, 2});
  Imported product("Einsum", 12);
  const Tensor y = product.input(a).input(b).with("equation", std::string("bhqd,hdkb->qbkh")).evaluate();
  ASSERT_EQ(y.shape(), (Shape{4, 2, 6, 3}));
  for (int i = 0; i < 2; ++i)
    for (int h = 0; h < 3; ++h)
      for (int q = 0; q < 4; ++q)
        for (int k = 0; k < 6; ++k) {
          double sum = 0;
          for (int d = 0; d < 5; ++d) sum += a.at(((i * 3 + h) * 4 + q) * 5 + d) * b.at(((h * 5 + d) * 6 + k) * 2 + i);
          EXPECT_NEAR(y.at(((q * 2 + i) * 6 + k) * 3 + h), sum, 1e-5);
        }
  Imported implicit("Einsum", 12);
  expect_near(implicit.input(numbers({2, 2}, {1, 2, 3, 4})).input(numbers({2}, {10, 1})).with("equation", std::string("ij,j")).evaluate(),
              {12, 34});
  Imported diagonal("Einsum", 12);
  diagonal.input(f32("3,3")).with("equation", std::string("ii->i"));
  expect_error(ErrorCode::unsupported, "diagonals", [&] { diagonal.run_rule(); });
}

}  // namespace
}  // namespace tandem::testing
