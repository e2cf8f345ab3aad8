#include "ops/reduce/reduce_cuda.cuh"

namespace tandem::cuda {
namespace {

// What elements are compared as.
template <typename T>
struct Compared {
  using type = std::int64_t;
  static __device__ std::int64_t from(T x) { return static_cast<std::int64_t>(x); }
};
template <>
struct Compared<float> {
  using type = float;
  static __device__ float from(float x) { return x; }
};
template <>
struct Compared<__half> {
  using type = float;
  static __device__ float from(__half x) { return to_float(x); }
};
template <>
struct Compared<__nv_bfloat16> {
  using type = float;
  static __device__ float from(__nv_bfloat16 x) { return to_float(x); }
};
template <>
struct Compared<double> {
  using type = double;
  static __device__ double from(double x) { return x; }
};

template <typename V>
struct Found {
  V value;
  std::uint32_t index;
  std::uint32_t exists;
};

template <typename T>
struct ArgReduce {
  using Element = T;
  using Result = std::int64_t;
  using V = typename Compared<T>::type;
  using Acc = Found<V>;
  bool max, last;

  __device__ Acc start() const { return {0, 0, 0}; }
  __device__ void update(Acc& acc, Element element, std::uint32_t index) const { join(acc, {Compared<T>::from(element), index, 1}); }
  __device__ void join(Acc& acc, Acc x) const {
    if (x.exists && (!acc.exists || beats(x, acc))) acc = x;
  }
  __device__ Result finish(Acc acc) const { return acc.index; }

 private:
  // NaN is further than any number, and as far as another.
  __device__ bool beats(const Acc& x, const Acc& best) const {
    const bool x_is_none = x.value != x.value, best_is_none = best.value != best.value;
    if (x_is_none != best_is_none) return x_is_none;
    if (x_is_none || x.value == best.value) return last ? x.index > best.index : x.index < best.index;
    return max ? x.value > best.value : x.value < best.value;
  }
};

template <typename T, int kVector>
void launch(const ReducePlan& plan, bool max, bool last, const void* x, void* y, void* parts, cudaStream_t stream) {
  const ArgReduce<T> op{max, last};
  if (plan.vector == kVector) launch_planned<ArgReduce<T>, kVector>(op, plan, x, y, parts, stream);
  else launch_planned<ArgReduce<T>, 1>(op, plan, x, y, parts, stream);
}

}  // namespace

void launch_arg_reduce(const ReducePlan& plan, bool max, bool last, DType dtype, const void* x, void* y, void* parts, cudaStream_t stream) {
  if (dtype == DType::f64) return launch<double, 2>(plan, max, last, x, y, parts, stream);
  if (is_kernel_float(dtype))
    return with_float_type(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch<T, 16 / sizeof(T)>(plan, max, last, x, y, parts, stream);
    });
  with_integer_type(dtype, [&](auto tag) { launch<typename decltype(tag)::type, 1>(plan, max, last, x, y, parts, stream); });
}

}  // namespace tandem::cuda
