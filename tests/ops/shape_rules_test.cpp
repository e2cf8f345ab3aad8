#include "ops/shape_rules.h"

#include "ops/onnx_dtype.h"
#include "ops/op_test.h"

namespace tandem::testing {
namespace {

std::vector<Dim> dims(const std::string& text) { return type_of(DType::f32, text).dims; }

TEST(ShapeRules, AxesCountFromBothEnds) {
  EXPECT_EQ(normalize_axis(-1, 3), 2);
  EXPECT_EQ(normalize_axis(0, 3), 0);
  expect_error(ErrorCode::invalid_model, "axis 3 is outside rank 3", [] { normalize_axis(3, 3); });
  expect_error(ErrorCode::invalid_model, "axis -4 is outside rank 3", [] { normalize_axis(-4, 3); });
  expect_error(ErrorCode::invalid_model, "axis 0 is outside rank 0", [] { normalize_axis(0, 0); });
  EXPECT_EQ(normalize_axes(std::vector<std::int64_t>{-1, 0}, 3), (std::vector<int>{0, 2}));
  expect_error(ErrorCode::invalid_model, "twice", [] { normalize_axes(std::vector<std::int64_t>{-1, 2}, 3); });
}

TEST(ShapeRules, BroadcastAlignsFromTheRight) {
  const Broadcast b = broadcast_dims(dims("B,1,S,4"), dims("H,1,4"));
  EXPECT_EQ(b.dims, dims("B,H,S,4"));
  EXPECT_TRUE(b.equal.empty());
  EXPECT_EQ(broadcast_dims(dims("0"), dims("1")).dims, dims("0"));
  expect_error(ErrorCode::invalid_model, "do not broadcast", [] { broadcast_dims(dims("2,3"), dims("2,4")); });
  expect_error(ErrorCode::invalid_model, "do not broadcast", [] { broadcast_dims(dims("S"), dims("S+1")); });
}

TEST(ShapeRules, BroadcastAssumesEqualExtentsThatMayBeEqual) {
  const Broadcast symbols = broadcast_dims(dims("P+S"), dims("T"));
  EXPECT_EQ(symbols.dims, dims("T"));
  ASSERT_EQ(symbols.equal.size(), 1u);
  EXPECT_EQ(symbols.equal[0], (std::pair<Dim, Dim>(Dim::parse("P+S"), Dim::parse("T"))));
  EXPECT_EQ(broadcast_dims(dims("S"), dims("8")).dims, dims("8"));
}

TEST(ShapeRules, OffsetsFollowStrides) {
  std::vector<std::array<std::int64_t, 2>> seen;
  for_each_offset<2>({2, 3}, {row_major_strides({2, 3}), strides_over({3}, {2, 3})},
                     [&](std::int64_t, const auto& at) { seen.push_back(at); });
  EXPECT_EQ(seen, (std::vector<std::array<std::int64_t, 2>>{{0, 0}, {1, 1}, {2, 2}, {3, 0}, {4, 1}, {5, 2}}));
  int visits = 0;
  for_each_offset<1>({2, 0}, {Shape{0, 1}}, [&](std::int64_t, const auto&) { ++visits; });
  EXPECT_EQ(visits, 0);
  for_each_offset<1>({}, {Shape{}}, [&](std::int64_t, const auto&) { ++visits; });
  EXPECT_EQ(visits, 1);
}

TEST(ShapeRules, OnnxElementTypes) {
  EXPECT_EQ(dtype_from_onnx(1), DType::f32);
  EXPECT_EQ(dtype_from_onnx(9), DType::boolean);
  EXPECT_EQ(dtype_from_onnx(16), DType::bf16);
  for (const DType type : {DType::f16, DType::i64, DType::u4, DType::f8e4m3}) EXPECT_EQ(dtype_from_onnx(dtype_to_onnx(type)), type);
  expect_error(ErrorCode::unsupported, "element type 8", [] { dtype_from_onnx(8); });
}

}  // namespace
}  // namespace tandem::testing
