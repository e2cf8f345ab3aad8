// The functions of pointwise programs as CUDA C++ text: those of ops/pointwise/scalar.h, in f32 or f64, and integers as 64 bits that wrap.
#include "ops/pointwise/pointwise_source_cuda.h"

namespace tandem::pointwise {
namespace {

constexpr const char* kConversions = R"(
// As device/cuda/dependent.cuh has it.
__device__ __forceinline__ void begin_dependent() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ float load_f16(unsigned short x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x)); return y; }
__device__ __forceinline__ unsigned short store_f16(float x) { unsigned short y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x)); return y; }
__device__ __forceinline__ unsigned short store_bf16(float x) { unsigned short y; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x)); return y; }
// Within a few units of the last place of f32; those called flushed take numbers below 2^-126 for zero.
__device__ __forceinline__ float flushed_exp2(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
__device__ __forceinline__ float flushed_reciprocal(float x) { float y; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
__device__ __forceinline__ float near_exp2(float x) { float y; asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
__device__ __forceinline__ float near_reciprocal(float x) { float y; asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
__device__ __forceinline__ float near_quotient(float a, float b) { float y; asm("div.full.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b)); return y; }
__device__ __forceinline__ float near_root(float x) { float y; asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
__device__ __forceinline__ float coarse_tanh(float x) { float y; asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }  // within 2^-11 of itself
__device__ __forceinline__ float within(float x, float most) {
  float y;
  asm("{ .reg .f32 t; min.NaN.f32 t, %1, %2; max.NaN.f32 %0, t, %3; }" : "=f"(y) : "f"(x), "f"(most), "f"(-most));
  return y;
}
)";

constexpr const char* kTypes = R"(
typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
struct Args {
  const void* in[16];
  void* out;
  void* fault;
  u64 count, vectors, inner, extents[8];
  i64 strides[16][9];
  u32 inner_multiplier, inner_shift, multipliers[8], shifts[8], aligned;
};
template <typename T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack { T at[N]; };
template <typename T, int N>
__device__ __forceinline__ void load_part(Pack<T, N>& to, const T* from, i64 rest) {
#pragma unroll
  for (int j = 0; j < N; ++j) to.at[j] = from[j < rest ? j : 0];  // what is past the end must do no harm: no zeros to divide by
}
template <typename T, int N>
__device__ __forceinline__ void store_part(T* to, const Pack<T, N>& from, i64 rest) {
#pragma unroll
  for (int j = 0; j < N; ++j) if (j < rest) to[j] = from.at[j];
}
__device__ __forceinline__ u32 divide_index(u32 i, u64, u32 multiplier, u32 shift) { return (__umulhi(i, multiplier) + i) >> shift; }
__device__ __forceinline__ u64 divide_index(u64 i, u64 extent, u32, u32) { return i / extent; }
)";

// E exponent and M mantissa bits: core/half.h has the same on the host.
constexpr const char* kSmallFloats = R"(
__device__ __forceinline__ float load_bf16(unsigned short x) { return __uint_as_float((u32)x << 16); }
template <int E, int M>
__device__ __forceinline__ float load_small(u32 h) {
  const u32 sign = h >> (E + M) & 1, mantissa = h & ((1u << M) - 1);
  const int exponent = (int)(h >> M & ((1u << E) - 1)), bias = (1 << (E - 1)) - 1;
  float y;
  if (exponent == (1 << E) - 1) y = __uint_as_float(mantissa ? 0x7fc00000u : 0x7f800000u);
  else if (exponent == 0) y = ldexpf((float)mantissa, 1 - bias - M);
  else y = ldexpf((float)(mantissa | 1u << M), exponent - bias - M);
  return sign ? -y : y;
}
template <int E, int M>
__device__ __forceinline__ u32 store_small(float x) {
  const int bias = (1 << (E - 1)) - 1, top = (1 << E) - 1;
  const u32 sign = (__float_as_uint(x) >> 31) << (E + M);
  if (x != x) return sign | (u32)top << M | 1u << (M - 1);
  const float a = fabsf(x);
  if (a == __uint_as_float(0x7f800000u)) return sign | (u32)top << M;
  if (a == 0) return sign;
  int exponent = ilogbf(a);
  if (exponent < 1 - bias) exponent = 1 - bias;
  const u32 code = ((u32)(exponent + bias - 1) << M) + (u32)rintf(ldexpf(a, M - exponent));
  return sign | (code >= (u32)top << M ? (u32)top << M : code);
}
__device__ __forceinline__ float load_f8e5m2(unsigned char x) { return load_small<5, 2>(x); }
__device__ __forceinline__ unsigned char store_f8e5m2(float x) { return (unsigned char)store_small<5, 2>(x); }
__device__ __forceinline__ float load_f8e4m3(unsigned char x) {
  if ((x & 0x7f) == 0x7f) return __uint_as_float(0x7fc00000u);
  if ((x & 0x78) == 0x78) return ldexpf(8.0f + (float)(x & 7), 5) * (x & 0x80 ? -1.0f : 1.0f);
  return load_small<4, 3>(x);
}
__device__ __forceinline__ unsigned char store_f8e4m3(float x) {
  const u32 sign = __float_as_uint(x) >> 31 << 7;
  const float a = fabsf(x);
  if (!(a <= 464.0f)) return (unsigned char)(sign | 0x7f);
  if (a < 256.0f) return (unsigned char)(sign | store_small<4, 3>(a));
  return (unsigned char)(sign | (u32)(0x78 + (int)rintf(a / 32.0f) - 8));
}
)";

constexpr const char* kReals = R"(
#define BOTH(name) \
  __device__ __forceinline__ float name##_(float x) { return name##f(x); } \
  __device__ __forceinline__ double name##_(double x) { return name(x); }
BOTH(ceil) BOTH(cos) BOTH(erf) BOTH(erfc) BOTH(exp) BOTH(expm1) BOTH(fabs) BOTH(floor) BOTH(log) BOTH(log1p) BOTH(rint) BOTH(sin) BOTH(sqrt) BOTH(tanh)
__device__ __forceinline__ float fmod_(float a, float b) { return fmodf(a, b); }
__device__ __forceinline__ double fmod_(double a, double b) { return fmod(a, b); }
__device__ __forceinline__ float pow_(float a, float b) { return powf(a, b); }
__device__ __forceinline__ double pow_(double a, double b) { return pow(a, b); }
#define REAL(name, ...) template <typename T> __device__ __forceinline__ T name(__VA_ARGS__)
REAL(Add, T a, T b) { return a + b; }
REAL(Sub, T a, T b) { return a - b; }
REAL(Mul, T a, T b) { return a * b; }
REAL(Div, T a, T b) { return a / b; }
REAL(FMod, T a, T b) { return fmod_(a, b); }
REAL(Mod, T a, T b) { const T r = fmod_(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
REAL(Pow, T a, T b) { return pow_(a, b); }
REAL(Max, T a, T b) { return a != a || a > b ? a : b; }
REAL(Min, T a, T b) { return a != a || a < b ? a : b; }
REAL(Abs, T x) { return fabs_(x); }
REAL(Neg, T x) { return -x; }
REAL(Relu, T x) { return x < 0 ? T(0) : x; }
REAL(Sign, T x) { return x != x ? x : T((x > 0) - (x < 0)); }
REAL(Ceil, T x) { return ceil_(x); }
REAL(Cos, T x) { return cos_(x); }
REAL(Elu, T x, T alpha) { return x < 0 ? alpha * expm1_(x) : x; }
REAL(Erf, T x) { return erf_(x); }
REAL(Exp, T x) { return exp_(x); }
REAL(Floor, T x) { return floor_(x); }
REAL(Sigmoid, T x) { const T e = exp_(x < 0 ? x : -x); return (x < 0 ? e : T(1)) / (1 + e); }
REAL(Gelu, T x) { return T(0.5) * x * erfc_(-x * T(0.70710678118654752440)); }
REAL(GeluTanh, T x) { return x * Sigmoid(T(1.5957691216057307118) * (x + T(0.044715) * x * x * x)); }
REAL(clamped, T x) { return Max(T(0), Min(T(1), x)); }
REAL(HardSigmoid, T x, T alpha, T beta) { return clamped(alpha * x + beta); }
REAL(HardSwish, T x) { return x * clamped(x / 6 + T(0.5)); }
REAL(LeakyRelu, T x, T alpha) { return x < 0 ? alpha * x : x; }
REAL(Log, T x) { return log_(x); }
REAL(Reciprocal, T x) { return 1 / x; }
REAL(Round, T x) { return rint_(x); }
REAL(Silu, T x) { return x * Sigmoid(x); }
REAL(Sin, T x) { return sin_(x); }
REAL(Softplus, T x) { return (x > 0 ? x : T(0)) + log1p_(exp_(-fabs_(x))) + (x != x ? x : T(0)); }
REAL(Sqrt, T x) { return sqrt_(x); }
REAL(Tanh, T x) { return tanh_(x); }
#define TEST(name, ...) template <typename T> __device__ __forceinline__ bool name(__VA_ARGS__)
TEST(Equal, T a, T b) { return a == b; }
TEST(Greater, T a, T b) { return a > b; }
TEST(GreaterOrEqual, T a, T b) { return a >= b; }
TEST(Less, T a, T b) { return a < b; }
TEST(LessOrEqual, T a, T b) { return a <= b; }
TEST(IsInf, T x) { return x - x != x - x && x == x; }
TEST(IsNaN, T x) { return x != x; }
TEST(And, T a, T b) { return a != 0 && b != 0; }
TEST(Or, T a, T b) { return a != 0 || b != 0; }
TEST(Xor, T a, T b) { return (a != 0) != (b != 0); }
TEST(Not, T x) { return x == 0; }
template <typename T> __device__ __forceinline__ T Where(bool condition, T a, T b) { return condition ? a : b; }
)";

// For programs whose numbers all are 16-bit floats: within a tenth of a unit of those, special values as above; a number below 2^-126 on
// the way may be taken for zero. CoarseTanh is for bf16, where 2^-11 is an eighth of a unit. The coefficients are least relative errors:
// tanh x = x p(x²) / q(x²) within 4e-6 up to 5.5, and the normal distribution's tail = t p(t) exp(−x²/2) within 5e-6, t = 1 / (1 + 0.31
// |x|).
constexpr const char* kQuick = R"(
#define QUICK(name, ...) __device__ __forceinline__ float Quick##name(__VA_ARGS__)
QUICK(Div, float a, float b) { return near_quotient(a, b); }
QUICK(Exp, float x) { return near_exp2(1.4426950408889634f * x); }
QUICK(Reciprocal, float x) { return near_reciprocal(x); }
QUICK(Sqrt, float x) { return near_root(x); }
QUICK(Sigmoid, float x) { return flushed_reciprocal(1.0f + flushed_exp2(-1.4426950408889634f * x)); }
QUICK(Silu, float x) { return x * QuickSigmoid(x); }
QUICK(GeluTanh, float x) { return x * QuickSigmoid(1.5957691216057307f * (x + 0.044715f * x * x * x)); }
QUICK(HardSwish, float x) { return x * clamped(x * 0.16666667f + 0.5f); }
QUICK(Tanh, float x) {
  const float c = within(x, 5.5f), u = c * c;
  const float p = (1.57599591e-3f * u + 0.115749431f) * u + 0.999995943f;
  const float q = ((6.02853726e-5f * u + 1.79639777e-2f) * u + 0.449053055f) * u + 1.0f;
  return c * p * flushed_reciprocal(q);
}
__device__ __forceinline__ float CoarseTanh(float x) { return coarse_tanh(x); }
QUICK(Gelu, float x) {
  const float y = fabsf(x), t = flushed_reciprocal(0.31f * y + 1.0f);
  const float p = ((((-0.07392916f * t + 0.18045039f) * t + 0.01574466f) * t + 0.13342981f) * t + 0.12044127f) * t + 0.1238607f;
  const float tail = t * p * flushed_exp2(-0.72134752f * y * y);
  return x * (x > 0.0f ? 1.0f - tail : tail);
}
)";

// Saturation to integers; the limits of 32 and 64 bits are one more as floats, where no float lies between.
constexpr const char* kIntegers = R"(
template <typename T>
__device__ __forceinline__ i64 saturated(T x, i64 low, i64 high) {
  return x != x ? 0 : x <= T(low) ? low : x >= T(high) ? high : (i64)x;
}
template <typename T>
__device__ __forceinline__ i64 saturated_u64(T x) {
  return x != x || x <= T(0) ? 0 : x >= T(18446744073709551616.0) ? (i64)~0ull : (i64)(u64)x;
}
#define INTEGER(name, ...) __device__ __forceinline__ i64 name(__VA_ARGS__)
INTEGER(Neg, i64 x) { return (i64)(0 - (u64)x); }
INTEGER(Abs, i64 x) { return x < 0 ? Neg(x) : x; }
INTEGER(Add, i64 a, i64 b) { return (i64)((u64)a + (u64)b); }
INTEGER(Sub, i64 a, i64 b) { return (i64)((u64)a - (u64)b); }
INTEGER(Mul, i64 a, i64 b) { return (i64)((u64)a * (u64)b); }
INTEGER(Max, i64 a, i64 b) { return a > b ? a : b; }
INTEGER(Min, i64 a, i64 b) { return a < b ? a : b; }
INTEGER(Relu, i64 x) { return x < 0 ? 0 : x; }
INTEGER(Sign, i64 x) { return (x > 0) - (x < 0); }
struct alignas(16) Fault { i64 number, past; };
__device__ __forceinline__ bool by_zero(i64 a, i64 b, void* fault) {
  if (b == 0) { Fault f; f.number = a; f.past = 1; *(Fault*)fault = f; }
  return b == 0;
}
INTEGER(Div, i64 a, i64 b, void* fault) { return by_zero(a, b, fault) ? 0 : b == -1 ? Neg(a) : a / b; }
INTEGER(FMod, i64 a, i64 b, void* fault) { return by_zero(a, b, fault) || b == -1 ? 0 : a % b; }
INTEGER(Mod, i64 a, i64 b, void* fault) { const i64 r = FMod(a, b, fault); return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
INTEGER(Pow, i64 a, i64 b) {
  if (b < 0) return a == 1 ? 1 : a == -1 ? (b % 2 == 0 ? 1 : -1) : 0;
  i64 y = 1;
  for (; b > 0; b >>= 1, a = Mul(a, a)) if (b & 1) y = Mul(y, a);
  return y;
}
)";

}  // namespace

std::string pointwise_conversions() { return kConversions; }
std::string pointwise_prelude() { return std::string(kTypes) + kSmallFloats + kReals + kQuick + kIntegers; }

}  // namespace tandem::pointwise
