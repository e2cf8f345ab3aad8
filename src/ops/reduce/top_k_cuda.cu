// TopK on a GPU, a block for each line. Elements become unsigned keys in their order; with the complement of the index below it a key is
// unique, so the k-th largest of these pairs, found digit by digit [radix select], says exactly which elements are taken, whatever the
// ties. They are then sorted by a bitonic network.
#include <type_traits>

#include "device/cuda/dependent.cuh"
#include "device/cuda/registers.cuh"
#include "ops/reduce/top_k_cuda.h"
#include "ops/types_cuda.cuh"

namespace tandem::cuda {
namespace {

constexpr int kDigit = 11, kBins = 1 << kDigit, kMostThreads = 1024, kLoads = kNeedsRegisters ? 4 : 8;

// Unsigned numbers of kBits bits in the order of the elements: NaN above all, zeros equal.
template <typename T>
struct Ordered {
  using Key = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  static constexpr int kBits = 8 * sizeof(T);
  static constexpr Key kAll = ~Key{0} >> (8 * sizeof(Key) - kBits), kSign = Key{1} << (kBits - 1);
  static __device__ Key key(T x) { return (static_cast<Key>(x) & kAll) ^ (std::is_signed_v<T> ? kSign : Key{0}); }
};
template <typename K, int kWidth, K kInfinity>
struct OrderedFloat {
  using Key = K;
  static constexpr int kBits = kWidth;
  static constexpr Key kAll = ~Key{0} >> (8 * sizeof(Key) - kBits), kSign = Key{1} << (kBits - 1);
  static __device__ Key from_bits(Key bits) {
    const Key magnitude = bits & ~kSign;
    if (magnitude > kInfinity) return kAll;
    if (magnitude == 0) return kSign;
    return bits & kSign ? bits ^ kAll : bits | kSign;
  }
};
template <>
struct Ordered<float> : OrderedFloat<std::uint32_t, 32, 0x7f800000u> {
  static __device__ Key key(float x) { return from_bits(__float_as_uint(x)); }
};
template <>
struct Ordered<__half> : OrderedFloat<std::uint32_t, 16, 0x7c00u> {
  static __device__ Key key(__half x) { return from_bits(__half_as_ushort(x)); }
};
template <>
struct Ordered<__nv_bfloat16> : OrderedFloat<std::uint32_t, 16, 0x7f80u> {
  static __device__ Key key(__nv_bfloat16 x) { return from_bits(__bfloat16_as_ushort(x)); }
};
template <>
struct Ordered<double> : OrderedFloat<std::uint64_t, 64, 0x7ff0000000000000ull> {
  static __device__ Key key(double x) { return from_bits(static_cast<Key>(__double_as_longlong(x))); }
};

// What comes first in the result is greater. {0, 0} is below every element.
template <typename Key>
struct Candidate {
  Key key;
  std::uint32_t order;  // the complement of the index: of equal elements the first is greater
};
template <typename Key>
__device__ __forceinline__ bool is_greater(const Candidate<Key>& a, const Candidate<Key>& b) {
  return a.key > b.key || (a.key == b.key && a.order > b.order);
}

// One line of x.
template <typename T>
struct Line {
  using Key = typename Ordered<T>::Key;
  const T* x;
  std::int64_t inner;
  std::uint32_t extent;
  Key flip;  // all ones where the smallest are looked for

  __device__ Key key(std::uint32_t j) const { return Ordered<T>::key(x[j * inner]) ^ flip; }
  // Calls `work(key, index)` for every element, by all threads of the block, several loads in flight.
  template <typename Work>
  __device__ __forceinline__ void each(const Work& work) const {
    for (std::uint32_t first = threadIdx.x; first < extent; first += kLoads * blockDim.x) {
      Key keys[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i)
        if (first + i * blockDim.x < extent) keys[i] = key(first + i * blockDim.x);
#pragma unroll
      for (int i = 0; i < kLoads; ++i)
        if (first + i * blockDim.x < extent) work(keys[i], first + i * blockDim.x);
    }
  }
};

// What the threads of a block tell each other while they select.
struct Shared {
  std::uint32_t bins[kBins], warps[32], digit, wanted, met, taken;
};

// Finds the bin of the wanted-th largest, counted from the last bin: its number, how many of it are wanted, and how many it holds.
__device__ void find_bin(Shared& s) {
  constexpr int kEach = kBins / kMostThreads;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, last = kBins - 1 - static_cast<int>(threadIdx.x) * kEach;
  const std::uint32_t wanted = s.wanted;
  std::uint32_t held = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) held += s.bins[last - i];
  std::uint32_t up_to = held;  // of this thread's bins and those above them
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const std::uint32_t other = __shfl_up_sync(0xffffffffu, up_to, distance);
    if (lane >= distance) up_to += other;
  }
  if (lane == 31) s.warps[warp] = up_to;
  __syncthreads();  // everyone has read `wanted`
  for (int w = 0; w < warp; ++w) up_to += s.warps[w];
  std::uint32_t above = up_to - held;
  if (above < wanted && wanted <= up_to) {
    int bin = last;
    while (above + s.bins[bin] < wanted) above += s.bins[bin--];
    s.digit = static_cast<std::uint32_t>(bin);
    s.wanted = wanted - above;
    s.met = s.bins[bin];
  }
  __syncthreads();
}

// One digit of `number(key, index)`, a number of type N whose bits from `top` on are known to be those of `known`: adds the digit to it.
// Returns `top` of the next digit, or 0 if all elements that agree so far are wanted.
template <typename N, typename T, typename Number>
__device__ __forceinline__ int narrow(const Line<T>& line, Shared& s, N& known, int top, const Number& number) {
  const int low = max(top - kDigit, 0);
  const N above = top == 8 * sizeof(N) ? N{0} : static_cast<N>(~N{0} << top), digit = (N{1} << (top - low)) - 1;
  for (std::uint32_t bin = threadIdx.x; bin < kBins; bin += blockDim.x) s.bins[bin] = 0;
  __syncthreads();
  line.each([&](typename Line<T>::Key key, std::uint32_t index) {
    N value;
    if (number(key, index, value) && ((value ^ known) & above) == 0) atomicAdd(&s.bins[(value >> low) & digit], 1u);
  });
  __syncthreads();
  find_bin(s);
  known |= static_cast<N>(s.digit) << low;
  return s.met == s.wanted ? 0 : low;
}

// The least of the k greatest, or something that only they reach.
template <typename T>
__device__ Candidate<typename Ordered<T>::Key> find_least(const Line<T>& line, std::uint32_t k, Shared& s) {
  using Key = typename Ordered<T>::Key;
  if (threadIdx.x == 0) s.wanted = k, s.taken = 0;
  __syncthreads();
  Candidate<Key> least{0, 0};
  int top = Ordered<T>::kBits;
  while (top > 0)
    top = narrow(line, s, least.key, top, [](Key key, std::uint32_t, Key& value) {
      value = key;
      return true;
    });
  if (s.met == s.wanted) return least;
  top = 32 - __clz(line.extent - 1);  // bits of an index; those of its complement above are all set
  least.order = ~0u << top;
  while (top > 0)
    top = narrow(line, s, least.order, top, [&](Key key, std::uint32_t index, std::uint32_t& value) {
      value = ~index;
      return key == least.key;
    });
  return least;
}

// The greatest first; `count` is a power of two.
template <typename Key>
__device__ __forceinline__ void sort(Candidate<Key>* held, std::uint32_t count) {
  for (std::uint32_t span = 2; span <= count; span *= 2)
    for (std::uint32_t step = span / 2; step > 0; step /= 2) {
      __syncthreads();
      for (std::uint32_t pair = threadIdx.x; pair < count / 2; pair += blockDim.x) {
        const std::uint32_t i = 2 * pair - (pair & (step - 1)), j = i + step;
        const Candidate<Key> a = held[i], b = held[j];
        if (is_greater(b, a) != ((i & span) == 0)) continue;
        held[i] = b;
        held[j] = a;
      }
    }
  __syncthreads();
}

// Short lines are sorted as they are; of long ones the k greatest, in `workspace` or, if that is null, in shared memory.
template <typename T, bool kSortsAll>
__global__ void __launch_bounds__(kMostThreads, 1)
    top_k(TopKPlan plan, const T* __restrict__ x, T* __restrict__ values, std::int64_t* __restrict__ indices,
          Candidate<typename Ordered<T>::Key>* workspace) {
  using Key = typename Ordered<T>::Key;
  extern __shared__ __align__(16) unsigned char in_shared[];
  Candidate<Key>* held = workspace ? workspace + std::size_t{blockIdx.x} * plan.sorted : reinterpret_cast<Candidate<Key>*>(in_shared);
  for (std::int64_t number = blockIdx.x; number < plan.lines; number += gridDim.x) {
    const std::int64_t outer = number / plan.inner, at = number % plan.inner;
    const Line<T> line{x + outer * plan.extent * plan.inner + at, plan.inner, plan.extent, plan.largest ? Key{0} : Ordered<T>::kAll};
    if constexpr (kSortsAll) {
      line.each([&](Key key, std::uint32_t index) { held[index] = {key, ~index}; });
    } else {
      __shared__ Shared s;
      const Candidate<Key> least = find_least(line, plan.k, s);
      line.each([&](Key key, std::uint32_t index) {
        const Candidate<Key> candidate{key, ~index};
        if (!is_greater(least, candidate)) held[atomicAdd(&s.taken, 1u)] = candidate;
      });
    }
    for (std::uint32_t i = (kSortsAll ? plan.extent : plan.k) + threadIdx.x; i < plan.sorted; i += blockDim.x) held[i] = {0, 0};
    sort(held, plan.sorted);
    const std::int64_t first = outer * plan.k * plan.inner + at;
    for (std::uint32_t i = threadIdx.x; i < plan.k; i += blockDim.x) {
      const std::uint32_t index = ~held[i].order;
      values[first + i * plan.inner] = line.x[index * plan.inner];
      indices[first + i * plan.inner] = index;
    }
    __syncthreads();  // before the next line is put there
  }
}

template <typename T>
void launch(const TopKPlan& plan, const void* from, void* to, std::int64_t* indices, void* workspace, cudaStream_t stream) {
  using Held = Candidate<typename Ordered<T>::Key>;
  static_assert(sizeof(Held) == (sizeof(T) == 8 ? 16 : 8));
  const std::size_t shared = plan.in_workspace ? 0 : plan.sorted * sizeof(Held);
  const auto* x = static_cast<const T*>(from);
  auto* values = static_cast<T*>(to);
  auto* held = plan.in_workspace ? static_cast<Held*>(workspace) : nullptr;
  if (plan.sorts_all) start_kernel(stream, top_k<T, true>, plan.blocks, plan.threads, shared, plan, x, values, indices, held);
  else start_kernel(stream, top_k<T, false>, plan.blocks, plan.threads, shared, plan, x, values, indices, held);
}

}  // namespace

void launch_top_k(const TopKPlan& plan, const void* x, void* values, std::int64_t* indices, void* workspace, cudaStream_t stream) {
  const auto run = [&](auto tag) { launch<typename decltype(tag)::type>(plan, x, values, indices, workspace, stream); };
  if (plan.dtype == DType::f64) return run(Tag<double>());
  if (is_kernel_float(plan.dtype)) return with_float_type(plan.dtype, run);
  with_integer_type(plan.dtype, run);
}

}  // namespace tandem::cuda
