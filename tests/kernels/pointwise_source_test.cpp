// The CUDA C++ made from pointwise programs: run on the host, as C++ with a shim in place of the GPU, against the op's evaluator; and
// compiled by NVRTC where it is found. So both its arithmetic and its text are checked without a GPU.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <unistd.h>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numbers>

#include "core/check.h"
#include "device/code.h"
#include "device/cuda/library.h"
#include "kernels/kernel_case.h"
#include "ops/pointwise/pointwise_view_cuda.h"
#include "ops/shape_rules.h"

namespace tandem::test {
namespace {

using namespace pointwise;

const DType kTypes[] = {DType::f32, DType::f16, DType::bf16, DType::f64, DType::f8e4m3, DType::f8e5m2, DType::i8,     DType::u8,
                        DType::i16, DType::u16, DType::i32,  DType::u32, DType::i64,    DType::u64,    DType::boolean};

struct SourceCase {
  std::string program;
  std::vector<Tensor> operands;
};

KernelCase kernel_case(const SourceCase& c) {
  return {.op = "Pointwise", .attributes = {{"program", c.program}}, .operands = {c.operands.begin(), c.operands.end()}};
}

PointwiseView view_of(const SourceCase& c) {
  const Type result = call_of(kernel_case(c)).results[0];
  const Shape shape = shape_of(result);
  std::vector<DType> dtypes;
  std::vector<Shape> strides;
  for (const Tensor& t : c.operands) {
    dtypes.push_back(t.dtype());
    strides.push_back(strides_over(t.shape(), shape));
  }
  return pointwise_view(Program::parse(c.program), dtypes, strides, result.dtype, shape);
}

// A few values of each kind: special ones, halves, large ones, both signs. `small`: whole numbers that powers of stay small.
Tensor values(DType dtype, Shape shape, int seed, bool small = false, bool nonzero = false) {
  const double specials[] = {0.0, -0.0, INFINITY, -INFINITY, NAN, 0.5, -0.5, 1.5, 2.5, -2.5, 1e4, -1e4, 88, -88, 1e-30, 3, 7, 240, -1, 1};
  std::vector<double> reals;
  std::vector<std::int64_t> ints;
  for (std::int64_t i = 0; i < element_count(shape); ++i) {
    const std::int64_t k = (i + seed) * 7919 + seed * 31;
    reals.push_back(k % 3 == 0 ? specials[static_cast<std::size_t>(k / 3 % std::ssize(specials))] : std::sin(static_cast<double>(k)) * 3);
    std::int64_t whole = small ? k % 4 : k % 251 - 125;
    if (!small && k % 11 == 0) whole *= std::int64_t{1} << 57;
    if (nonzero && bits(dtype) < 64 && static_cast<std::int8_t>(whole) == 0) whole = 3;
    if (nonzero && whole == 0) whole = 3;
    ints.push_back(dtype == DType::boolean ? k % 2 : whole);
  }
  return is_float(dtype) ? Tensor::of(dtype, std::move(shape), reals) : Tensor::of_ints(dtype, std::move(shape), ints);
}

// Every function on every one of the dtypes that it takes.
std::vector<SourceCase> every_function(std::span<const DType> types) {
  std::vector<SourceCase> cases;
  constexpr const char* kNames[] = {
#define TANDEM_FUNCTION(name, arguments, kind) #name,
#include "ops/pointwise/functions.def"
  };
  for (std::size_t f = 0; f < std::size(kNames); ++f)
    for (const DType dtype : types) {
      const std::string name = kNames[f];
      if (name == "Cast") continue;
      SourceCase c{name + "(", {}};
      for (int a = 0; a < arity(static_cast<Function>(f)); ++a) {
        const bool divisor = a == 1 && (name == "Div" || name == "Mod" || name == "FMod");
        c.program += fmt::format("{}a{}", a ? "," : "", a);
        c.operands.push_back(values(name == "Where" && a == 0 ? DType::boolean : dtype, {61}, a + 1, name == "Pow", divisor));
      }
      c.program += ")";
      try {
        call_of(kernel_case(c));
      } catch (const Error&) {
        continue;  // not of this dtype
      }
      cases.push_back(std::move(c));
    }
  return cases;
}

std::vector<SourceCase> every_cast() {
  std::vector<SourceCase> cases;
  for (const DType from : kTypes)
    for (const DType to : kTypes) cases.push_back({fmt::format("Cast(a0,{})", to_string(to)), {values(from, {83}, 1)}});
  return cases;
}

std::vector<SourceCase> chains_and_shapes() {
  std::vector<SourceCase> cases;
  const auto f32 = [](Shape shape, int seed) { return values(DType::f32, std::move(shape), seed); };
  for (const DType dtype : {DType::f32, DType::f16, DType::f64, DType::i32, DType::i8})
    for (const auto& [a, b] : std::vector<std::pair<Shape, Shape>>{{{3, 1000}, {3, 1000}},
                                                                   {{3, 1000}, {1000}},
                                                                   {{3, 1000}, {3, 1}},
                                                                   {{7, 1, 5}, {3, 1}},
                                                                   {{}, {11}},
                                                                   {{}, {}},
                                                                   {{4, 1, 1, 9}, {1, 2, 3, 1}},
                                                                   {{0, 3}, {1, 3}},
                                                                   {{1, 8}, {300, 8}},
                                                                   {{2, 5, 1, 16}, {5, 4, 16}},
                                                                   {{257, 3}, {3}}})
      cases.push_back({"t0=Mul(a0,a1);Add(t0,a1)", {values(dtype, a, 1), values(dtype, b, 2)}});
  cases.push_back({"t0=Mul(a0,a1);t1=Add(t0,a2);Gelu(t1)", {f32({6, 700}, 1), f32({700}, 2), f32({6, 1}, 3)}});
  cases.push_back({"t0=Where(a1,a0,-inf);Exp(t0)", {f32({6, 700}, 1), values(DType::boolean, {700}, 2)}});
  cases.push_back({"t0=Greater(a0,a1);t1=Cast(a2,f32);t2=Where(t0,t1,a0);t3=Mul(a2,2);t4=Cast(t3,f32);Add(t2,t4)",
                   {f32({6, 700}, 1), f32({700}, 2), values(DType::i64, {6, 1}, 3, true)}});
  cases.push_back({"t0=Cast(a0,f16);t1=Tanh(t0);Cast(t1,f32)", {f32({333}, 1)}});
  cases.push_back({"t0=Mul(a0,300);Cast(t0,i8)", {values(DType::i64, {6, 1}, 1)}});
  cases.push_back({"t0=Pow(a0,2);t1=Pow(a0,3);Sub(t0,t1)", {f32({100}, 1)}});
  cases.push_back(
      {"t0=Equal(a0,2);t1=Equal(a1,1);t2=Or(t0,t1);Where(t2,a1,0)", {values(DType::i8, {40}, 1, true), values(DType::boolean, {40}, 2)}});
  cases.push_back(
      {"t0=Cast(a0,bf16);t1=Mul(t0,0.1);t2=Cast(t1,f32);Add(t2,a1)", {values(DType::f16, {4, 24}, 1), values(DType::f32, {24}, 2)}});
  return cases;
}

std::string kernels_of_all(const std::vector<SourceCase>& cases) {
  std::string text;
  for (std::size_t i = 0; i < cases.size(); ++i)
    if (const PointwiseView view = view_of(cases[i]); view.blocks > 0) text += pointwise_kernel(view.form, fmt::format("kernel_{}", i));
  return text;
}

constexpr const char* kShim = R"(
#include <cmath>
#include <cstring>
#include "core/half.h"
#define __device__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(x)
struct { unsigned x; } blockIdx, threadIdx;
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline void begin_dependent() {}
inline float load_f16(unsigned short x) { return tandem::f16_to_float(x); }
inline unsigned short store_f16(float x) { return tandem::float_to_f16(x); }
inline unsigned short store_bf16(float x) { return tandem::float_to_bf16(x); }
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float flushed_exp2(float x) { return flushed(std::exp2(flushed(x))); }
inline float flushed_reciprocal(float x) { return flushed(1 / flushed(x)); }
inline float near_exp2(float x) { return std::exp2(x); }
inline float near_reciprocal(float x) { return 1 / x; }
inline float near_quotient(float a, float b) { return a / b; }
inline float near_root(float x) { return std::sqrt(x); }
inline float coarse_tanh(float x) { return std::tanh(x); }
inline float within(float x, float most) { return x < -most ? -most : x > most ? most : x; }
)";

// The kernels as a library of the host: run_<i>(args, blocks) does what a launch does, one thread after the other.
class HostLibrary {
 public:
  explicit HostLibrary(const std::vector<SourceCase>& cases) {
    const std::string stem = fmt::format("{}/tandem_pointwise_{}", testing::TempDir(), getpid());
    std::ofstream file(stem + ".cpp");
    file << kShim << pointwise_prelude() << kernels_of_all(cases);
    for (std::size_t i = 0; i < cases.size(); ++i)
      if (view_of(cases[i]).blocks > 0)
        file << fmt::format(
            "extern \"C\" void run_{0}(const Args* p, unsigned blocks) {{\n  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)\n"
            "    for (threadIdx.x = 0; threadIdx.x < {1}; ++threadIdx.x) kernel_{0}(*p);\n}}\n",
            i, kPointwiseThreads);
    file.close();
    const std::string command = fmt::format("{} -std=c++20 -O0 -w -fwrapv -ffp-contract=off -shared -fPIC -I {} {}.cpp -o {}.so",
                                            TANDEM_TEST_COMPILER, TANDEM_TEST_INCLUDE, stem, stem);
    check(std::system(command.c_str()) == 0, command);
    handle_ = dlopen((stem + ".so").c_str(), RTLD_NOW | RTLD_LOCAL);
    check(handle_ != nullptr, "the library of kernels opens");
    std::filesystem::remove(stem + ".cpp");
    std::filesystem::remove(stem + ".so");
  }
  ~HostLibrary() { dlclose(handle_); }

  Tensor run(const SourceCase& c, std::size_t number, bool aligned, void* fault) const {
    const PointwiseView view = view_of(c);
    const Type type = call_of(kernel_case(c)).results[0];
    Tensor result(type.dtype, shape_of(type));
    if (view.blocks == 0) return result;
    PointwiseArgs args = view.args;
    for (std::size_t i = 0; i < c.operands.size(); ++i) args.in[i] = c.operands[i].data();
    args.out = result.mutable_data();
    args.fault = fault;
    args.aligned = aligned;
    reinterpret_cast<void (*)(const PointwiseArgs*, unsigned)>(dlsym(handle_, fmt::format("run_{}", number).c_str()))(&args, view.blocks);
    return result;
  }

 private:
  void* handle_ = nullptr;
};

double relative_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return 1e-13;
    case DType::f32: return 3e-6;
    case DType::f16: return 1.1e-3;
    case DType::bf16: return 9e-3;
    case DType::f8e4m3: return 0.13;
    case DType::f8e5m2: return 0.26;
    default: return 0;
  }
}

void expect_same(const Tensor& actual, const Tensor& expected, const std::string& what, double relative) {
  ASSERT_EQ(actual.shape(), expected.shape()) << what;
  ASSERT_EQ(actual.dtype(), expected.dtype()) << what;
  for (std::int64_t i = 0; i < actual.count(); ++i) {
    if (!is_float(actual.dtype())) {
      ASSERT_EQ(actual.int_at(i), expected.int_at(i)) << what << " element " << i;
      continue;
    }
    const double a = actual.at(i), e = expected.at(i);
    ASSERT_EQ(std::isnan(a), std::isnan(e)) << what << " element " << i << ": " << a << " for " << e;
    if (std::isnan(e) || a == e) continue;
    ASSERT_LE(std::fabs(a - e), relative * std::fabs(e) + (actual.dtype() == DType::f64 ? 1e-15 : 1e-6))
        << what << " element " << i << ": " << a << " for " << e;
  }
}

void expect_all(const std::vector<SourceCase>& cases, bool exact) {
  const HostLibrary library(cases);
  alignas(16) std::int64_t fault[2] = {};
  for (std::size_t i = 0; i < cases.size(); ++i) {
    std::string what = cases[i].program;
    for (const Tensor& t : cases[i].operands) what += fmt::format(" {}{}", to_string(t.dtype()), to_string(t.shape()));
    const Tensor expected = evaluate(kernel_case(cases[i]))[0];
    for (const bool aligned : {true, false})
      expect_same(library.run(cases[i], i, aligned, fault), expected, what, exact ? 0 : relative_of(expected.dtype()));
  }
  EXPECT_EQ(fault[1], 0);
}

TEST(PointwiseSource, EveryFunctionOfEveryType) {
  const std::vector<SourceCase> cases = every_function(kTypes);
  EXPECT_GE(cases.size(), 46u * 6);
  expect_all(cases, false);
}

TEST(PointwiseSource, EveryCast) { expect_all(every_cast(), true); }

TEST(PointwiseSource, ChainsAndShapes) { expect_all(chains_and_shapes(), false); }

bool has_quick_text(const PointwiseView& view) {
  const std::string text = pointwise_kernel(view.form, "k");
  return text.find("Quick") != std::string::npos || text.find("Coarse") != std::string::npos;
}

// The distance between neighbours of a 16-bit float near x.
double unit_near(DType dtype, double x) {
  const int digits = dtype == DType::f16 ? 11 : 8, least = dtype == DType::f16 ? -24 : -133;
  int exponent = 0;
  std::frexp(x, &exponent);
  return std::ldexp(1.0, x == 0 ? least : std::max(exponent - digits, least));
}

// 1 + tanh of the evaluator's formula loses digits where it is next to nothing.
double exact_value(Function function, double x) {
  if (function != Function::GeluTanh) return pointwise::apply(function, std::span<const double>(&x, 1));
  return x / (1 + std::exp(-2 * std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

// In programs of 16-bit floats alone functions are quick ones: correctly rounded but for a hundredth of a unit, and zero for what
// comes from a number below 2^-126.
TEST(PointwiseSource, QuickFunctionsOfEvery16BitNumber) {
  const Function functions[] = {Function::Exp,     Function::Gelu, Function::GeluTanh, Function::HardSwish, Function::Reciprocal,
                                Function::Sigmoid, Function::Silu, Function::Sqrt,     Function::Tanh};
  std::vector<SourceCase> cases;
  for (const Function function : functions)
    for (const DType dtype : {DType::f16, DType::bf16}) {
      Tensor all(dtype, {65536});
      for (std::uint32_t i = 0; i < 65536; ++i) reinterpret_cast<std::uint16_t*>(all.mutable_data())[i] = static_cast<std::uint16_t>(i);
      cases.push_back({fmt::format("{}(a0)", to_string(function)), {std::move(all)}});
      EXPECT_TRUE(has_quick_text(view_of(cases.back())));
    }
  const HostLibrary library(cases);
  for (std::size_t c = 0; c < cases.size(); ++c) {
    const Tensor &x = cases[c].operands[0], y = library.run(cases[c], c, true, nullptr);
    const double largest = x.dtype() == DType::f16 ? 65504 : 0x1.fep127;
    for (std::int64_t i = 0; i < x.count(); ++i) {
      const double in = x.at(i), exact = exact_value(functions[c / 2], in), actual = y.at(i);
      if (std::isnan(exact) || std::isinf(exact))
        ASSERT_EQ(std::isnan(exact) ? std::isnan(actual) : actual == exact, true) << cases[c].program << " of " << in;
      else if (std::fabs(exact) > largest) ASSERT_GE(std::fabs(actual), largest) << cases[c].program << " of " << in;
      else
        ASSERT_LE(std::fabs(actual - exact), 0.51 * unit_near(x.dtype(), exact) + 0x1p-126 * (1 + std::fabs(in)))
            << cases[c].program << " of " << in << ": " << actual << " for " << exact;
    }
  }
}

TEST(PointwiseSource, QuickFunctionsAreFor16BitFloatsAlone) {
  const auto is_quick = [](const std::string& program, std::vector<Tensor> operands) {
    return has_quick_text(view_of({program, std::move(operands)}));
  };
  const Tensor half(DType::f16, {64}), brain(DType::bf16, {64}), single(DType::f32, {64}), condition(DType::boolean, {64});
  EXPECT_TRUE(is_quick("t0=Tanh(a0);Mul(t0,a1)", {brain, brain}));
  EXPECT_TRUE(is_quick("t0=Cast(a0,f16);Tanh(t0)", {brain}));
  EXPECT_TRUE(is_quick("t0=Exp(a0);Where(a1,t0,0)", {half, condition}));
  EXPECT_FALSE(is_quick("Tanh(a0)", {single}));
  EXPECT_FALSE(is_quick("t0=Tanh(a0);Cast(t0,f32)", {half}));
  EXPECT_FALSE(is_quick("t0=Cast(a0,f16);Tanh(t0)", {single}));
  EXPECT_FALSE(is_quick("t0=Tanh(a0);t1=Greater(t0,0.5);Where(t1,a0,0)", {half}));
  EXPECT_FALSE(is_quick("t0=Tanh(a0);Round(t0)", {half}));
}

TEST(PointwiseSource, VectorsAreAsWideAsMemoryAllows) {
  const auto form = [](DType a, Shape a_shape, DType b, Shape b_shape) {
    return view_of({a == b ? "Add(a0,a1)" : "Where(a1,a0,0)", {Tensor(a, std::move(a_shape)), Tensor(b, std::move(b_shape))}}).form;
  };
  const auto expect = [](const PointwiseForm& f, int vector, int dims, std::vector<Way> ways) {
    EXPECT_EQ(f.vector, vector);
    EXPECT_EQ(f.dims, dims);
    EXPECT_EQ(f.ways, ways);
  };
  expect(form(DType::f32, {5, 7}, DType::f32, {5, 7}), 4, 0, {Way::dense, Way::dense});
  expect(form(DType::f16, {5, 7}, DType::f16, {}), 8, 0, {Way::dense, Way::scalar});
  expect(form(DType::f16, {5, 24}, DType::f16, {24}), 8, 1, {Way::dense, Way::rows});
  expect(form(DType::f16, {5, 12}, DType::f16, {5, 1}), 4, 1, {Way::dense, Way::columns});
  expect(form(DType::f32, {5, 7}, DType::f32, {7}), 1, 1, {Way::dense, Way::rows});
  expect(form(DType::f32, {64}, DType::boolean, {64}), 8, 0, {Way::dense, Way::dense});
  expect(form(DType::i64, {64}, DType::boolean, {64}), 4, 0, {Way::dense, Way::dense});
}

TEST(PointwiseSource, DividingAnIntegerByZeroIsReported) {
  const std::vector<SourceCase> cases = {{"Div(a0,a1)",
                                          {Tensor::of_ints(DType::i32, {3}, std::vector<std::int64_t>{5, 6, -7}),
                                           Tensor::of_ints(DType::i32, {3}, std::vector<std::int64_t>{2, 0, 2})}}};
  const HostLibrary library(cases);
  alignas(16) std::int64_t fault[2] = {};
  const Tensor result = library.run(cases[0], 0, true, fault);
  EXPECT_EQ(result.to_ints(), (std::vector<std::int64_t>{2, 0, -3}));
  EXPECT_EQ(fault[0], 6);
  EXPECT_EQ(fault[1], 1);
}

TEST(PointwiseSource, CompilesForGpus) {
  std::string why;
  if (!cuda::find_library(cuda::Which::nvrtc, &why)) GTEST_SKIP() << why;
  const std::string prelude = pointwise_conversions() + pointwise_prelude();
  const DType computed[] = {DType::f32, DType::f64, DType::f16, DType::i32, DType::boolean};
  for (const std::vector<SourceCase>& cases : {every_function(computed), every_cast(), chains_and_shapes()})
    EXPECT_GT(compile_cuda(prelude + kernels_of_all(cases), 90)->size(), 1000u);
  EXPECT_GT(compile_cuda(prelude + kernels_of_all({{"Cast(a0,bf16)", {values(DType::f32, {64}, 1)}}}), 80)->size(), 1000u);
  EXPECT_THROW(compile_cuda(prelude + "this is no text", 90), Error);
}

}  // namespace
}  // namespace tandem::test
