#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "kernels/kernel_case.h"
#include "ops/ops.h"
#include "ops/pointwise/program.h"
#include "tandem/error.h"

namespace tandem::test {
namespace {

const DType kFloats[] = {DType::f32, DType::f16, DType::bf16};

Tensor with_specials(Tensor t) {
  const double specials[] = {0.0, -0.0, INFINITY, -INFINITY, NAN, 1e4, -1e4, 88.0, -88.0, 1e-30};
  for (std::int64_t i = 0; i < std::min<std::int64_t>(t.count(), 10); ++i) store_element(t.dtype(), t.mutable_data(), i, specials[i]);
  return t;
}

Tensor ints(DType dtype, Shape shape, std::int64_t low, std::int64_t high) {
  std::vector<std::int64_t> values;
  for (std::int64_t i = 0; i < element_count(shape); ++i) values.push_back(low + i * 7919 % (high - low + 1));
  return Tensor::of_ints(dtype, std::move(shape), values);
}

// One element after the other, relative to itself: a wrong tail or special value must not hide behind a large one.
void expect_elements_close(const KernelCase& c, double relative, double absolute) {
  const Tensor actual = run_kernel(c)[0], expected = evaluate(c)[0];
  ASSERT_EQ(actual.shape(), expected.shape()) << c.op;
  ASSERT_EQ(actual.dtype(), expected.dtype()) << c.op;
  for (std::int64_t i = 0; i < actual.count(); ++i) {
    const double a = actual.at(i), e = expected.at(i);
    ASSERT_EQ(std::isnan(a), std::isnan(e)) << c.op << " element " << i << ": " << a << " for " << e << ", operand "
                                            << c.operands[0]->at(i % c.operands[0]->count());
    if (std::isnan(e) || a == e) continue;
    ASSERT_LE(std::fabs(a - e), relative * std::fabs(e) + absolute)
        << c.op << " element " << i << ": " << a << " for " << e << ", operand " << c.operands[0]->at(i % c.operands[0]->count());
  }
}

double relative_of(DType dtype) { return dtype == DType::f32 ? 3e-6 : dtype == DType::f16 ? 1.1e-3 : 9e-3; }

TEST(Pointwise, EveryUnaryOpOnFloats) {
  int seen = 0;
  for (const OpDef* op : all_ops().all()) {
    if (!op->pointwise || op->max_operands != 1 || op->name == "Cast" || op->name == "Not") continue;
    if (!pointwise::statement_for(op->name, Attributes(&op->fields))) continue;
    ++seen;
    for (const DType dtype : kFloats)
      for (const std::int64_t n : {0, 1, 17, 3000}) {
        KernelCase c = {
            .kernel = "pointwise", .op = std::string(op->name), .operands = {with_specials(random_tensor(dtype, {n}, 1, 3))}, .threads = 2};
        expect_elements_close(c, relative_of(dtype), 1e-6);
      }
  }
  EXPECT_GE(seen, 25);
}

TEST(Pointwise, EveryBinaryOp) {
  for (const OpDef* op : all_ops().all()) {
    if (!op->pointwise || op->max_operands != 2) continue;
    const bool logic = op->name == "And" || op->name == "Or" || op->name == "Xor";
    const std::pair<Shape, Shape> shapes[] = {{{3, 1000}, {3, 1000}},       {{3, 1000}, {1000}}, {{7, 1, 5}, {3, 1}}, {{}, {11}},
                                              {{4, 1, 1, 9}, {1, 2, 3, 1}}, {{0, 3}, {1, 3}}};
    for (const auto& [a, b] : shapes)
      for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::i8, DType::boolean}) {
        if (logic != (dtype == DType::boolean) && op->name != "Equal") continue;
        const bool power = op->name == "Pow", division = op->name == "Div" || op->name == "Mod";
        KernelCase c = {.kernel = "pointwise", .op = std::string(op->name)};
        if (is_float(dtype)) c.operands = {with_specials(random_tensor(dtype, a, 1)), random_tensor(dtype, b, 2)};
        else if (dtype == DType::boolean) c.operands = {ints(dtype, a, 0, 1), ints(dtype, b, 0, 1)};
        else c.operands = {ints(dtype, a, power ? 0 : -100, 100), ints(dtype, b, power ? 0 : division ? 1 : -50, power ? 3 : 50)};
        c.threads = 2;
        expect_elements_close(c, relative_of(dtype), dtype == DType::f32 ? 1e-6 : 1e-3);
      }
  }
}

TEST(Pointwise, ErfGeluAndExpAreAccurate) {
  std::vector<double> x;
  for (double v = -20; v <= 20; v += 1.0 / 512) x.push_back(v);
  const Tensor in = Tensor::of(DType::f32, {static_cast<std::int64_t>(x.size())}, x);
  const auto largest_error = [&](const char* op, auto f, bool relative) {
    const Tensor y = run_kernel({.kernel = "pointwise", .op = op, .operands = {in}})[0];
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double error = std::fabs(y.at(static_cast<std::int64_t>(i)) - f(x[i]));
      worst = std::max(worst, relative ? error / std::fabs(f(x[i])) : error);
    }
    return worst;
  };
  EXPECT_LE(largest_error(
                "Erf", [](double v) { return std::erf(v); }, false),
            1e-6);
  EXPECT_LE(largest_error(
                "Gelu", [](double v) { return 0.5 * v * std::erfc(-v / std::numbers::sqrt2); }, false),
            2e-6);
  EXPECT_LE(largest_error(
                "Exp", [](double v) { return std::exp(v); }, true),
            3e-7);
  EXPECT_LE(largest_error(
                "Tanh", [](double v) { return std::tanh(v); }, false),
            1e-6);
  EXPECT_LE(largest_error(
                "Sigmoid", [](double v) { return 1 / (1 + std::exp(-v)); }, false),
            1e-6);
}

TEST(Pointwise, Casts) {
  const DType types[] = {DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::i8, DType::u8, DType::boolean};
  for (const DType from : types)
    for (const DType to : types) {
      const Tensor x =
          is_float(from) ? with_specials(random_tensor(from, {5, 300}, 1, 200)) : ints(from, {5, 300}, 0, from == DType::boolean ? 1 : 120);
      expect_elements_close({.kernel = "pointwise", .op = "Cast", .attributes = {{"to", to}}, .operands = {x}}, 0, 0);
    }
}

TEST(Pointwise, WhereAndAttributes) {
  const Tensor condition = ints(DType::boolean, {4, 1, 6}, 0, 1);
  for (const DType dtype : {DType::f32, DType::f16, DType::i64, DType::boolean}) {
    const auto value = [&](Shape shape) { return is_float(dtype) ? random_tensor(dtype, shape, 3) : ints(dtype, shape, 0, 1); };
    expect_elements_close({.kernel = "pointwise", .op = "Where", .operands = {condition, value({5, 6}), value({})}}, 0, 0);
  }
  const Tensor x = with_specials(random_tensor(DType::f32, {100}, 1)), y = random_tensor(DType::f32, {100}, 2);
  expect_elements_close({.kernel = "pointwise", .op = "Gelu", .attributes = {{"approximate", std::string("tanh")}}, .operands = {x}}, 3e-6,
                        1e-6);
  expect_elements_close({.kernel = "pointwise", .op = "Elu", .attributes = {{"alpha", 0.5}}, .operands = {x}}, 3e-6, 1e-6);
  expect_elements_close({.kernel = "pointwise", .op = "HardSigmoid", .attributes = {{"alpha", 0.5}, {"beta", 0.1}}, .operands = {x}}, 3e-6,
                        1e-6);
  expect_elements_close({.kernel = "pointwise", .op = "Mod", .attributes = {{"fmod", true}}, .operands = {x, y}}, 3e-6, 1e-6);
  expect_elements_close({.kernel = "pointwise", .op = "Not", .operands = {condition}}, 0, 0);
  const KernelCase one_sign = {.kernel = "pointwise", .op = "IsInf", .attributes = {{"negative", false}}, .operands = {x}};
  EXPECT_TRUE(refusal_of(one_sign));
  const KernelCase double_precision = {
      .kernel = "pointwise", .op = "Add", .operands = {random_tensor(DType::f64, {3}, 1), random_tensor(DType::f64, {3}, 2)}};
  EXPECT_TRUE(refusal_of(double_precision));
}

// Rows that GPUs move in vectors, with what is one for a row or a column beside them; the last ones have rows that no vector divides.
TEST(Pointwise, LongRows) {
  const std::vector<std::vector<Shape>> rows = {{{64, 4096}, {64, 4096}},    {{64, 4096}, {4096}}, {{64, 4096}, {64, 1}},
                                                {{3, 40, 520}, {3, 1, 520}}, {{520, 8}, {1}},      {{257, 1001}, {1001}},
                                                {{1001, 257}, {1001, 1}}};
  for (const DType dtype : kFloats)
    for (const auto& shapes : rows) {
      KernelCase c = {
          .kernel = "pointwise", .op = "Pointwise", .attributes = {{"program", std::string("t0=Add(a0,a1);t1=Silu(t0);Mul(t1,a0)")}}};
      c.operands = {with_specials(random_tensor(dtype, shapes[0], 1)), random_tensor(dtype, shapes[1], 2)};
      expect_elements_close(c, 2 * relative_of(dtype), 1e-5);
    }
}

// Dtypes that of the CPU's kernels only the plain one takes, on GPUs.
TEST(Pointwise, OtherDtypes) {
  for (const DType dtype : {DType::f64, DType::f8e4m3, DType::f8e5m2, DType::u64})
    for (const char* op : {"Add", "Mul", "Max", "Neg", "Exp", "Erf", "Gelu", "Sigmoid", "Tanh", "Equal"}) {
      KernelCase c = {.kernel = "plain",
                      .op = op,
                      .operands = {is_float(dtype) ? with_specials(random_tensor(dtype, {7, 33}, 1)) : ints(dtype, {7, 33}, -9, 90)}};
      const int operands = all_ops().find(op)->min_operands;
      if (!is_float(dtype) && operands == 1) continue;
      if (operands == 2) c.operands.emplace_back(is_float(dtype) ? random_tensor(dtype, {33}, 2) : ints(dtype, {33}, -9, 9));
      expect_elements_close(c, dtype == DType::f64 ? 1e-13 : dtype == DType::f8e4m3 ? 0.13 : 0.26, dtype == DType::f64 ? 1e-15 : 0);
    }
  for (const DType from : {DType::f64, DType::f32, DType::f16, DType::i64, DType::boolean})
    for (const DType to : {DType::f8e4m3, DType::f8e5m2, DType::f64, DType::u64, DType::bf16}) {
      const Tensor x =
          is_float(from) ? with_specials(random_tensor(from, {5, 33}, 1, 200)) : ints(from, {5, 33}, 0, from == DType::boolean ? 1 : 120);
      expect_elements_close({.kernel = "plain", .op = "Cast", .attributes = {{"to", to}}, .operands = {x}}, 0, 0);
    }
}

TEST(Pointwise, DividingAnIntegerByZeroIsAnError) {
  const auto of = [](std::initializer_list<std::int64_t> values) {
    return Tensor::of_ints(DType::i32, {static_cast<std::int64_t>(values.size())}, std::vector(values));
  };
  for (const char* op : {"Div", "Mod"}) {
    EXPECT_THROW(run_kernel({.kernel = "pointwise", .op = op, .operands = {of({5, 6, 7}), of({1, 0, 2})}}), Error);
    EXPECT_EQ(run_kernel({.kernel = "pointwise", .op = op, .operands = {of({5, 6, 7}), of({1, 3, 7})}})[0].to_ints(),
              op == std::string("Div") ? (std::vector<std::int64_t>{5, 2, 1}) : (std::vector<std::int64_t>{0, 0, 0}));
  }
}

TEST(Gated, EveryActivationAndWidth) {
  for (const std::string activation : {"none", "gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"})
    for (const DType dtype : kFloats)
      for (const Shape& shape : {Shape{3, 2}, Shape{2, 5, 34}, Shape{3, 2 * 1500}, Shape{0, 4}, Shape{4, 0}}) {
        KernelCase c = {
            .kernel = "gated", .op = "Gated", .attributes = {{"activation", activation}}, .operands = {random_tensor(dtype, shape, 1)}};
        c.threads = 2;
        expect_elements_close(c, relative_of(dtype), 1e-6);
      }
}

TEST(Program, RunsFusedChains) {
  const Tensor x = random_tensor(DType::f32, {6, 700}, 1), row = random_tensor(DType::f32, {700}, 2),
               column = random_tensor(DType::f32, {6, 1}, 3);
  const Tensor mask = ints(DType::boolean, {700}, 0, 1), index = ints(DType::i64, {6, 1}, -3, 3);
  const auto expect = [&](const char* program, std::vector<std::optional<Tensor>> operands, bool in_place = false) {
    KernelCase c = {.kernel = "pointwise",
                    .op = "Pointwise",
                    .attributes = {{"program", std::string(program)}},
                    .operands = std::move(operands),
                    .threads = 2};
    c.in_place = in_place;
    expect_elements_close(c, 1e-5, 1e-5);
  };
  expect("t0=Mul(a0,a1);t1=Add(t0,a2);Gelu(t1)", {x, row, column});
  expect("t0=Mul(a0,0.5);t1=Mul(t0,t0);t2=Add(t1,t0);t3=Sub(t2,a0);Mul(t3,t1)", {x});
  expect("t0=Mul(a0,0.5);t1=Mul(t0,t0);t2=Add(t1,t0);t3=Sub(t2,a0);Mul(t3,t1)", {x}, true);
  expect("t0=Where(a1,a0,-inf);Exp(t0)", {x, mask});
  expect("t0=Greater(a0,a1);t1=Cast(a2,f32);t2=Where(t0,t1,a0);t3=Mul(a2,2);t4=Cast(t3,f32);Add(t2,t4)", {x, row, index});
  expect("t0=Cast(a0,f16);t1=Tanh(t0);Cast(t1,f32)", {x});
  expect("t0=Mul(a0,300);Cast(t0,i8)", {index});
}

TEST(Program, Text) {
  using pointwise::Program;
  for (const char* text : {"Abs(a0)", "t0=Mul(a0,0.5);t1=Cast(t0,f16);Cast(t1,f32)", "t0=Where(a1,a0,-inf);Add(t0,1e-30)"})
    EXPECT_EQ(Program::parse(text).to_string(), text);
  const DType one[] = {DType::f32};
  for (const char* text : {"", "Abs", "Abs()", "Abs(a0,a1)", "Nope(a0)", "t1=Abs(a0);Abs(t1)", "t0=Abs(t0);Abs(t0)", "Abs(t0)", "Abs(a)",
                           "Abs(a0);Abs(a0)", "Cast(a0,f99)", "Add(1,2)", "Not(a0)", "Where(a0,a0,a0)", "Add(a0,a1)", "And(a0,a0)"})
    EXPECT_THROW(Program::parse(text).types(one), Error) << text;
}

}  // namespace
}  // namespace tandem::test
