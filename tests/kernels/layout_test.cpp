// Ops that move elements, and those along one axis. Where the CPU has only the evaluator ("plain"), the rows are there for a GPU's kernels.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/kernel_case.h"
#include "tandem/error.h"

namespace tandem::test {
namespace {

using Ints = std::vector<std::int64_t>;
using Attributes = std::vector<std::pair<std::string, AttributeValue>>;

// Different bits in every element, of any dtype.
Tensor counted(DType dtype, Shape shape, std::int64_t start = 0) {
  Tensor t(dtype, std::move(shape));
  std::mt19937 random(static_cast<unsigned>(start + t.count()));
  for (std::size_t i = 0; i < t.size_bytes(); ++i)
    t.mutable_data()[i] = static_cast<std::byte>(dtype == DType::boolean ? random() % 2 : is_float(dtype) ? random() % 120 : random());
  return t;
}

std::vector<Dim> dims(const Ints& values) { return {values.begin(), values.end()}; }

Tensor random_indices(DType dtype, Shape shape, std::int64_t extent) {
  std::mt19937 random(7);
  Ints values(static_cast<std::size_t>(element_count(shape)));
  for (std::int64_t& v : values) v = static_cast<std::int64_t>(random() % static_cast<unsigned>(2 * extent)) - extent;
  return Tensor::of_ints(dtype, std::move(shape), values);
}

// Moved, not computed: every bit agrees with the op's evaluator.
void expect_moved(const std::string& kernel, const std::string& op, const Attributes& attributes,
                  std::vector<std::optional<Tensor>> operands) {
  KernelCase c = {.kernel = kernel, .op = op, .attributes = attributes, .operands = std::move(operands), .threads = 2};
  const Tensor actual = run_kernel(c).at(0), expected = evaluate(c).at(0);
  ASSERT_EQ(actual.shape(), expected.shape());
  const auto different =
      std::mismatch(actual.bytes().begin(), actual.bytes().end(), expected.bytes().begin()).first - actual.bytes().begin();
  EXPECT_EQ(static_cast<std::size_t>(different), actual.size_bytes())
      << op << " of " << to_string(c.operands[0]->dtype()) << to_string(c.operands[0]->shape()) << " to " << to_string(actual.shape())
      << ": the first byte that differs";
}

const DType kMoved[] = {DType::u8, DType::bf16, DType::f32, DType::i64, DType::boolean};

TEST(Gather, RowsOfAnySize) {
  for (const DType dtype : kMoved)
    for (const Shape& table : {Shape{5, 24}, {5, 7}, {5}, {5, 2, 3}, {5, 4096}, {5, 0}})
      for (const DType index : {DType::i32, DType::i64})
        for (const Shape& indices : {Shape{}, {1}, {2, 3}, {0}, {300}})
          expect_moved("gather", "Gather", {}, {counted(dtype, table), random_indices(index, indices, 5)});
}

TEST(Gather, AlongAnyAxis) {
  const Tensor x = counted(DType::f16, {3, 4, 10});
  for (const std::int64_t axis : {0, 1, 2, -1})
    expect_moved("gather", "Gather", {{"axis", axis}},
                 {x, random_indices(DType::i64, {6}, x.shape()[static_cast<std::size_t>((axis + 3) % 3)])});
}

TEST(Gather, ManyItems) {
  expect_moved("gather", "Gather", {}, {counted(DType::f32, {50, 64}), random_indices(DType::i32, {40000}, 50)});
  expect_moved("gather", "Gather", {{"axis", std::int64_t{1}}}, {counted(DType::u8, {700, 33}), random_indices(DType::i64, {1001}, 33)});
}

TEST(Gather, ZerosForRowsOfOthers) {
  expect_moved("gather", "Gather", {{"base", Dim(4)}, {"whole", Dim(12)}},
               {counted(DType::f32, {4, 8}), random_indices(DType::i64, {40}, 12)});
}

TEST(Gather, RefusesAnIndexOutside) {
  for (const std::int64_t index : {5, -6, 1 << 20}) {
    KernelCase c = {
        .kernel = "gather", .op = "Gather", .operands = {counted(DType::f32, {5, 3}), Tensor::of_ints(DType::i64, {3}, Ints{0, index, 4})}};
    EXPECT_THROW(run_kernel(c), Error) << index;
    c.attributes = {{"base", Dim(5)}, {"whole", Dim(20)}};
    if (index == 5) {
      EXPECT_NO_THROW(run_kernel(c));
    }
  }
  KernelCase empty = {
      .kernel = "gather", .op = "Gather", .operands = {Tensor(DType::f32, {0, 3}), Tensor::of_ints(DType::i64, {1}, Ints{0})}};
  EXPECT_THROW(run_kernel(empty), Error);
}

TEST(GatherND, BlocksOfAnySize) {
  for (const DType dtype : kMoved)
    for (const std::int64_t inner : {1, 3, 16, 130})
      for (const std::int64_t batch : {0, 1})
        expect_moved("gather_nd", "GatherND", {{"batch_dims", batch}},
                     {counted(dtype, {4, 5, 4, inner}), random_indices(DType::i32, {4, 50, 2}, 4)});
}

TEST(Transpose, OfTwoDimensions) {
  for (const DType dtype : kMoved)
    for (const Shape& shape : {Shape{64, 64}, {65, 64}, {128, 100}, {17, 16}, {16, 203}, {5, 1000}, {1, 9}, {0, 4}, {3, 3}, {132, 260}})
      expect_moved("transpose", "Transpose", {{"permutation", Ints{1, 0}}}, {counted(dtype, shape)});
}

TEST(Transpose, OfMore) {
  for (const DType dtype : kMoved)
    for (const Ints& permutation : {Ints{0, 2, 1, 3}, {0, 1, 3, 2}, {3, 2, 1, 0}, {2, 3, 0, 1}, {1, 0, 3, 2}, {0, 3, 1, 2}, {0, 1, 2, 3}})
      for (const Shape& shape : {Shape{2, 17, 4, 64}, {3, 33, 5, 18}, {2, 20, 40, 2}, {1, 7, 16, 3}, {4, 1, 1, 5}})
        expect_moved("transpose", "Transpose", {{"permutation", permutation}}, {counted(dtype, shape)});
  expect_moved("transpose", "Transpose", {{"permutation", Ints{5, 0, 4, 1, 3, 2}}}, {counted(DType::f16, {2, 3, 4, 5, 6, 7})});
}

TEST(Slice, BoundsAndSteps) {
  const auto expect = [](const Shape& shape, const Ints& starts, const Ints& ends, const Ints& axes, const Ints& steps) {
    for (const DType dtype : kMoved)
      expect_moved("slice", "Slice", {{"starts", dims(starts)}, {"ends", dims(ends)}, {"axes", axes}, {"steps", steps}},
                   {counted(dtype, shape)});
  };
  expect({3, 7, 5}, {1, 4}, {6, -1}, {1, 2}, {2, -3});
  expect({4, 256}, {64}, {128}, {1}, {});
  expect({4, 256}, {63}, {127}, {1}, {});  // 16-byte stores of what begins anywhere
  expect({4, 255}, {1}, {255}, {-1}, {});
  expect({50, 128}, {49}, {-1}, {0}, {-1});
  expect({50, 128}, {127}, {-1}, {1}, {-1});
  expect({20, 6, 64}, {2, 0}, {6, 64}, {1, 2}, {2, 4});
  expect({20, 6}, {3}, {3}, {0}, {});
}

TEST(Expand, RepeatsDimensions) {
  const auto expect = [](const Shape& from, const Ints& to) {
    for (const DType dtype : kMoved) expect_moved("expand", "Expand", {{"shape", dims(to)}}, {counted(dtype, from)});
  };
  expect({}, {1000});
  expect({1}, {3, 33});
  expect({5, 1}, {5, 64});
  expect({5, 1}, {4, 5, 7});
  expect({2, 3, 1, 8, 16}, {2, 3, 4, 8, 16});
  expect({1, 7}, {20, 7});
  expect({3, 1}, {3, 0});
}

TEST(Concat, PartsOfAnySize) {
  for (const DType dtype : kMoved)
    for (const std::int64_t axis : {0, 1, -1})
      for (const Ints& widths : {Ints{8, 8}, {64, 64}, {3, 0, 5}, {1, 1, 2, 3, 5, 8, 13, 21, 34, 55}, {7}, {0, 0}}) {
        std::vector<std::optional<Tensor>> parts;
        for (const std::int64_t width : widths) {
          Shape shape = {6, 5, 4};
          shape[static_cast<std::size_t>((axis + 3) % 3)] = width;
          parts.push_back(counted(dtype, shape, static_cast<std::int64_t>(parts.size())));
        }
        expect_moved("concat", "Concat", {{"axis", axis}}, parts);
      }
}

TEST(Layout, ManyItems) {
  expect_moved("transpose", "Transpose", {{"permutation", Ints{0, 2, 1, 3}}}, {counted(DType::u8, {2, 300, 16, 1000})});
  expect_moved("concat", "Concat", {{"axis", std::int64_t{1}}}, {counted(DType::f16, {600, 1001}), counted(DType::f16, {600, 10}, 1)});
  expect_moved("expand", "Expand", {{"shape", dims({301, 3, 1001})}}, {counted(DType::bf16, {301, 1, 1001})});
}

TEST(Reshape, CopiesOrStays) {
  for (const bool in_place : {false, true}) {
    KernelCase c = {.kernel = "reshape",
                    .op = "Reshape",
                    .attributes = {{"shape", dims({6, 35})}},
                    .operands = {counted(DType::f16, {5, 42})},
                    .in_place = in_place};
    expect_close(run_kernel(c)[0], evaluate(c)[0], 0, "reshape");
  }
}

TEST(ShardSlice, RowsPastTheEndAreZeros) {
  for (const DType dtype : kMoved)
    for (const std::int64_t begin : {0, 3, 6, 9, 12})
      for (const Shape& shape : {Shape{9, 32}, {9}, {4, 9, 5}})
        expect_moved("shard_slice", "ShardSlice",
                     {{"dim", std::int64_t{shape.size() == 3 ? 1 : 0}}, {"begin", Dim(begin)}, {"length", Dim(4)}},
                     {counted(dtype, shape)});
}

TEST(GatherElements, OfAnyShape) {
  for (const DType dtype : kMoved)
    for (const DType index : {DType::i32, DType::i64}) {
      const auto expect = [&](const Shape& data, const Shape& indices, std::int64_t axis) {
        expect_moved("plain", "GatherElements", {{"axis", axis}},
                     {counted(dtype, data), random_indices(index, indices, data[static_cast<std::size_t>(axis)])});
      };
      expect({5, 7}, {9, 7}, 0);
      expect({5, 7}, {5, 3}, 1);
      expect({5, 7}, {4, 30}, 1);
      expect({3, 4, 5}, {3, 6, 5}, 1);
      expect({3, 4, 5}, {2, 6, 3}, 1);
      expect({2, 3, 4, 5}, {2, 3, 4, 5}, 3);
      expect({9}, {0}, 0);
    }
  expect_moved("plain", "GatherElements", {{"axis", std::int64_t{1}}},
               {counted(DType::f32, {600, 50}), random_indices(DType::i32, {600, 1000}, 50)});
}

TEST(GatherElements, RefusesAnIndexOutside) {
  KernelCase c = {.kernel = "plain",
                  .op = "GatherElements",
                  .operands = {counted(DType::f32, {2, 3}), Tensor::of_ints(DType::i64, {1, 3}, Ints{0, 2, 1})}};
  EXPECT_THROW(run_kernel(c), Error);
  c.operands = {counted(DType::f32, {2, 3}), Tensor::of_ints(DType::i64, {1, 4}, Ints{0, 0, 0, 0})};
  EXPECT_THROW(run_kernel(c), Error);
}

TEST(ScatterND, TheLastOfEqualTuplesStays) {
  for (const DType dtype : kMoved)
    for (const DType index : {DType::i32, DType::i64})
      for (const std::int64_t inner : {1, 3, 64})
        for (const std::int64_t tuples : {0, 1, 5, 300})
          expect_moved("plain", "ScatterND", {},
                       {counted(dtype, {6, 6, inner}), random_indices(index, {tuples, 2}, 6), counted(dtype, {tuples, inner}, 1)});
  expect_moved("plain", "ScatterND", {},
               {counted(DType::f16, {40, 8, 16}), random_indices(DType::i64, {3, 7, 1}, 40), counted(DType::f16, {3, 7, 8, 16}, 1)});
}

TEST(ScatterND, Reductions) {
  for (const char* reduction : {"add", "mul", "max", "min"}) {
    KernelCase c = {.kernel = "plain", .op = "ScatterND", .attributes = {{"reduction", std::string(reduction)}}};
    c.operands = {random_tensor(DType::f32, {6, 3}, 1), random_indices(DType::i64, {20, 1}, 6), random_tensor(DType::f32, {20, 3}, 2)};
    expect_kernel_matches_op(c, 0);
  }
}

TEST(ScatterND, RefusesAnIndexOutside) {
  KernelCase c = {.kernel = "plain",
                  .op = "ScatterND",
                  .operands = {counted(DType::f32, {2, 3}), Tensor::of_ints(DType::i64, {2, 1}, Ints{0, 2}), counted(DType::f32, {2, 3})}};
  EXPECT_THROW(run_kernel(c), Error);
}

TEST(Pad, Modes) {
  const auto expect = [](const Shape& shape, const Ints& pads, const Ints& modes) {
    const char* words[] = {"constant", "reflect", "edge"};
    for (const DType dtype : kMoved)
      for (const std::int64_t mode : modes)
        expect_moved("plain", "Pad", {{"pads", dims(pads)}, {"mode", std::string(words[mode])}, {"value", 1.0}}, {counted(dtype, shape)});
  };
  expect({3, 4}, {1, 2, 0, 3}, {0, 1, 2});
  expect({3, 64}, {1, 0, 2, 0}, {0, 1, 2});
  expect({3, 64}, {0, 16, 0, 32}, {0, 1, 2});
  expect({2, 3, 8, 9}, {0, 0, 1, 2, 0, 0, 3, 4}, {0, 1, 2});
  expect({2, 3, 8, 16}, {0, 1, 0, 0, 0, 1, 0, 0}, {0, 1, 2});
  expect({1, 5}, {0, 0, 0, 0}, {0, 1, 2});
  expect({}, {}, {0});
  expect({0, 4}, {2, 0, 1, 0}, {0});
  expect({0, 4}, {0, 1, 0, 1}, {0, 1, 2});
  expect({900, 700}, {3, 1, 0, 5}, {0});
}

TEST(Trilu, BothSidesOfAnyDiagonal) {
  for (const DType dtype : kMoved)
    for (const Shape& shape : {Shape{5, 5}, {3, 16, 32}, {7, 3}, {2, 2, 33, 64}, {0, 3}})
      for (const bool upper : {false, true})
        for (const std::int64_t k : {0, 1, -2, 100, -100})
          expect_moved("plain", "Trilu", {{"upper", upper}, {"k", Dim(k)}}, {counted(dtype, shape)});
}

TEST(CumSum, AlongAnyAxis) {
  for (const DType dtype : {DType::f32, DType::f16, DType::f64, DType::i32, DType::u8, DType::i64})
    for (const Shape& shape : {Shape{5}, {3, 7, 4}, {2, 5000}, {200, 3}, {1, 65, 1}, {3, 2048}, {40000, 3}, {2, 0, 3}})
      for (std::int64_t axis = 0; axis < static_cast<std::int64_t>(shape.size()); ++axis)
        for (const bool exclusive : {false, true})
          for (const bool reverse : {false, true}) {
            KernelCase c = {
                .kernel = "plain", .op = "CumSum", .attributes = {{"axis", axis}, {"exclusive", exclusive}, {"reverse", reverse}}};
            c.operands = {random_tensor(dtype, shape, 5, is_float(dtype) ? 1 : 30)};
            expect_kernel_matches_op(c, is_float(dtype) ? tolerance_of(dtype) : 0);
          }
}

TEST(CumSum, InfinitiesStayFromThereOn) {
  Tensor x = random_tensor(DType::f32, {3, 3000}, 5);
  x.mutable_as<float>()[100] = INFINITY;
  x.mutable_as<float>()[2500] = -INFINITY;
  x.mutable_as<float>()[4000] = NAN;
  for (const bool exclusive : {false, true}) {
    KernelCase c = {
        .kernel = "plain", .op = "CumSum", .attributes = {{"axis", std::int64_t{1}}, {"exclusive", exclusive}}, .operands = {x}};
    expect_kernel_matches_op(c, 1e-5);
  }
}

}  // namespace
}  // namespace tandem::test
