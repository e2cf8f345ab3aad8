#include "ops/reduce/reduce_cuda.cuh"

namespace tandem::cuda {
namespace {

enum class Combine { sum, squares, magnitudes, max, min, product, exponentials };

template <typename T>
struct Wide {
  using type = float;
  static __device__ float from(T x) { return to_float(x); }
  static __device__ T to(float x) { return from_float<T>(x); }
};
template <>
struct Wide<double> {
  using type = double;
  static __device__ double from(double x) { return x; }
  static __device__ double to(double x) { return x; }
};

// largest + log(sum), the sum of exponentials less the largest.
template <typename A>
struct Exponentials {
  A largest, sum;
};

// NaN stays, from either side.
template <bool kMax, typename A>
__device__ __forceinline__ A extreme(A best, A x) {
  return (kMax ? x > best : x < best) || x != x ? x : best;
}

template <typename A>
__device__ __forceinline__ A infinity() {
  return static_cast<A>(__builtin_huge_val());
}

template <typename T, Combine kCombine>
struct FloatReduce {
  using Element = T;
  using Result = T;
  using Acc = typename Wide<T>::type;
  ReduceKind kind;
  double count;

  __device__ Acc start() const {
    if (kCombine == Combine::max) return -infinity<Acc>();
    if (kCombine == Combine::min) return infinity<Acc>();
    return kCombine == Combine::product ? 1 : 0;
  }
  __device__ void update(Acc& acc, Element element, std::uint32_t) const {
    const Acc x = Wide<T>::from(element);
    if (kCombine == Combine::squares) acc = fma(x, x, acc);
    else if (kCombine == Combine::magnitudes) acc += fabs(x);
    else join(acc, x);
  }
  __device__ void join(Acc& acc, Acc x) const {
    if (kCombine == Combine::max) acc = extreme<true>(acc, x);
    else if (kCombine == Combine::min) acc = extreme<false>(acc, x);
    else if (kCombine == Combine::product) acc *= x;
    else acc += x;
  }
  __device__ Result finish(Acc acc) const {
    if (kind == ReduceKind::mean) acc /= static_cast<Acc>(count);
    if (kind == ReduceKind::l2) acc = sqrt(acc);
    if (kind == ReduceKind::log_sum) acc = log(acc);
    return Wide<T>::to(acc);
  }
};

template <typename T>
struct FloatReduce<T, Combine::exponentials> {
  using Element = T;
  using Result = T;
  using A = typename Wide<T>::type;
  using Acc = Exponentials<A>;
  ReduceKind kind;
  double count;

  __device__ Acc start() const { return {-infinity<A>(), 0}; }
  // Infinities meet as equals, so that none is subtracted from itself; NaN ends up in the sum.
  __device__ void update(Acc& acc, Element element, std::uint32_t) const {
    const A x = Wide<T>::from(element);
    if (x == -infinity<A>()) return;
    if (x > acc.largest) acc = {x, acc.sum * exp(acc.largest - x) + 1};
    else acc.sum += x == acc.largest ? A{1} : exp(x - acc.largest);
  }
  __device__ void join(Acc& acc, Acc x) const {
    const A largest = acc.largest > x.largest ? acc.largest : x.largest;
    acc.sum = scaled(acc, largest) + scaled(x, largest);
    acc.largest = largest;
  }
  __device__ Result finish(Acc acc) const { return Wide<T>::to(acc.largest + log(acc.sum)); }

 private:
  static __device__ A scaled(Acc acc, A largest) { return acc.largest == largest ? acc.sum : acc.sum * exp(acc.largest - largest); }
};

Combine combine_of(ReduceKind kind) {
  switch (kind) {
    case ReduceKind::max: return Combine::max;
    case ReduceKind::min: return Combine::min;
    case ReduceKind::prod: return Combine::product;
    case ReduceKind::l1: return Combine::magnitudes;
    case ReduceKind::l2:
    case ReduceKind::sum_square: return Combine::squares;
    case ReduceKind::log_sum_exp: return Combine::exponentials;
    default: return Combine::sum;
  }
}

template <typename Work>
void with_combine(Combine combine, const Work& work) {
  switch (combine) {
    case Combine::sum: return work(std::integral_constant<Combine, Combine::sum>());
    case Combine::squares: return work(std::integral_constant<Combine, Combine::squares>());
    case Combine::magnitudes: return work(std::integral_constant<Combine, Combine::magnitudes>());
    case Combine::max: return work(std::integral_constant<Combine, Combine::max>());
    case Combine::min: return work(std::integral_constant<Combine, Combine::min>());
    case Combine::product: return work(std::integral_constant<Combine, Combine::product>());
    case Combine::exponentials: return work(std::integral_constant<Combine, Combine::exponentials>());
  }
}

template <typename T>
void launch(const ReducePlan& plan, ReduceKind kind, const void* x, void* y, void* parts, cudaStream_t stream) {
  with_combine(combine_of(kind), [&](auto combine) {
    const FloatReduce<T, combine.value> op{kind, static_cast<double>(plan.extent)};
    constexpr int kVector = 16 / sizeof(T);
    if (plan.vector == kVector) launch_planned<FloatReduce<T, combine.value>, kVector>(op, plan, x, y, parts, stream);
    else launch_planned<FloatReduce<T, combine.value>, 1>(op, plan, x, y, parts, stream);
  });
}

}  // namespace

void launch_reduce(const ReducePlan& plan, ReduceKind kind, DType dtype, const void* x, void* y, void* parts, cudaStream_t stream) {
  if (dtype == DType::f64) return launch<double>(plan, kind, x, y, parts, stream);
  with_float_type(dtype, [&](auto tag) { launch<typename decltype(tag)::type>(plan, kind, x, y, parts, stream); });
}

}  // namespace tandem::cuda
