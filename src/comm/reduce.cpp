// Plain loops that the compiler vectorises, built once per instruction set; Highway only picks the build that the machine can run.
#include "comm/reduce.h"

// Three builds are enough: the baseline, AVX2 and AVX-512.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "comm/reduce.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

// A codec turns stored elements into what is computed with, and back, one or a block at a time.
template <typename Codec>
void load_block(const typename Codec::Storage* from, typename Codec::Wide* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) to[i] = Codec::load(from[i]);
}

template <typename Codec>
void store_block(const typename Codec::Wide* from, typename Codec::Storage* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) to[i] = Codec::store(from[i]);
}

template <typename T>
struct Native {
  using Storage = T;
  using Wide = T;
  static Wide load(Storage s) { return s; }
  static Storage store(Wide w) { return w; }
};

struct BFloat16 {
  using Storage = std::uint16_t;
  using Wide = float;
  static float load(Storage s) { return std::bit_cast<float>(static_cast<std::uint32_t>(s) << 16); }
  static Storage store(float f) {
    const auto u = std::bit_cast<std::uint32_t>(f);
    const std::uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16, nan = (u >> 16) | 0x40;
    return static_cast<Storage>((u & 0x7fffffff) > 0x7f800000 ? nan : rounded);
  }
};

// The conversions of core/half.h for IEEE-like floats, without branches or library calls so that they vectorise.
// kFinite: no infinity, and only the code of all ones is NaN.
template <typename T, int kExponent, int kMantissa, bool kFinite>
struct SmallFloat {
  using Storage = T;
  using Wide = float;
  static constexpr int kBias = (1 << (kExponent - 1)) - 1, kShift = 23 - kMantissa;
  static constexpr std::uint32_t kTop = ((1u << kExponent) - 1) << kMantissa, kAllOnes = (1u << (kExponent + kMantissa)) - 1;
  static constexpr std::uint32_t kMinNormal = static_cast<std::uint32_t>(128 - kBias) << 23;

  static float load(Storage s) {
    const std::uint32_t code = s & kAllOnes, moved = code << kShift;
    const std::uint32_t normal = moved + (static_cast<std::uint32_t>(127 - kBias) << 23);
    const auto subnormal = std::bit_cast<std::uint32_t>(std::bit_cast<float>(moved + kMinNormal) - std::bit_cast<float>(kMinNormal));
    const std::uint32_t special = kFinite ? 0x7fc00000u : moved + ((255u - (kTop >> kMantissa)) << 23);
    const bool is_special = kFinite ? code == kAllOnes : code >= kTop;
    const std::uint32_t magnitude = is_special ? special : code < (1u << kMantissa) ? subnormal : normal;
    return std::bit_cast<float>(magnitude | (static_cast<std::uint32_t>(s >> (kExponent + kMantissa)) << 31));
  }

  static Storage store(float f) {
    const auto u = std::bit_cast<std::uint32_t>(f);
    const std::uint32_t a = u & 0x7fffffff;
    const std::uint32_t to_even = ((1u << (kShift - 1)) - 1) + ((a >> kShift) & 1);
    const std::uint32_t normal = (a - (static_cast<std::uint32_t>(127 - kBias) << 23) + to_even) >> kShift;
    // Adding a float whose last bit has the weight of the target's last bit makes the adder round.
    constexpr std::uint32_t magic = static_cast<std::uint32_t>(127 - kBias + kShift + 1) << 23;
    const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(std::bit_cast<float>(a) + std::bit_cast<float>(magic)) - magic;
    const std::uint32_t rounded = a < kMinNormal ? subnormal : normal;
    const std::uint32_t limit = kFinite ? kAllOnes : kTop, nan = kFinite ? kAllOnes : kTop | (1u << (kMantissa - 1));
    const std::uint32_t code = a > 0x7f800000 ? nan : rounded < limit ? rounded : limit;
    return static_cast<Storage>(code | ((u >> 31) << (kExponent + kMantissa)));
  }
};

using Float16 = SmallFloat<std::uint16_t, 5, 10, false>;

#if !HWY_ARCH_X86 || HWY_TARGET <= HWY_AVX2
// The machine converts f16 itself, ten times faster; the compiler does not find out alone.
template <>
void load_block<Float16>(const std::uint16_t* from, float* to, std::size_t count) {
  const hn::ScalableTag<float> wide;
  const hn::Rebind<hwy::float16_t, decltype(wide)> narrow;
  std::size_t i = 0;
  for (; i + hn::Lanes(wide) <= count; i += hn::Lanes(wide))
    hn::StoreU(hn::PromoteTo(wide, hn::LoadU(narrow, reinterpret_cast<const hwy::float16_t*>(from + i))), wide, to + i);
  for (; i < count; ++i) to[i] = Float16::load(from[i]);
}

template <>
void store_block<Float16>(const float* from, std::uint16_t* to, std::size_t count) {
  const hn::ScalableTag<float> wide;
  const hn::Rebind<hwy::float16_t, decltype(wide)> narrow;
  std::size_t i = 0;
  for (; i + hn::Lanes(wide) <= count; i += hn::Lanes(wide))
    hn::StoreU(hn::DemoteTo(narrow, hn::LoadU(wide, from + i)), narrow, reinterpret_cast<hwy::float16_t*>(to + i));
  for (; i < count; ++i) to[i] = Float16::store(from[i]);
}
#endif

template <typename T>
using Unsigned = std::conditional_t<(sizeof(T) < 8), std::uint32_t, std::uint64_t>;  // wide enough not to be promoted to int

template <Reduction kReduction, typename W>
W combine(W a, W b) {
  // `|`, not `||`: both sides are computed anyway, and a branch would keep the loop from being vectorised.
  if constexpr (kReduction == Reduction::max) return (a > b) | (a != a) ? a : b;
  else if constexpr (kReduction == Reduction::min) return (a < b) | (a != a) ? a : b;
  else if constexpr (std::is_floating_point_v<W>) return kReduction == Reduction::prod ? a * b : a + b;
  else if constexpr (kReduction == Reduction::prod) return static_cast<W>(static_cast<Unsigned<W>>(a) * static_cast<Unsigned<W>>(b));
  else return static_cast<W>(static_cast<Unsigned<W>>(a) + static_cast<Unsigned<W>>(b));
}

template <Reduction kReduction, typename W>
W finish(W sum, std::size_t n) {
  if constexpr (kReduction != Reduction::avg) return sum;
  else if constexpr (std::is_floating_point_v<W>) return sum / static_cast<W>(n);
  else if constexpr (std::is_signed_v<W>) return static_cast<W>(sum / static_cast<std::int64_t>(n));
  else return static_cast<W>(sum / n);
}

template <typename Codec, Reduction kReduction>
void reduce(void* out, const void* const* sources, std::size_t n, std::size_t elements) {
  using S = typename Codec::Storage;
  using W = typename Codec::Wide;
  auto* to = static_cast<S*>(out);
  if (n == 1) {
    if (out != sources[0]) std::memcpy(out, sources[0], elements * sizeof(S));
    return;
  }
  if (n == 2 && std::is_same_v<S, W>) {
    const auto* a = static_cast<const S*>(sources[0]);
    const auto* b = static_cast<const S*>(sources[1]);
    // `out` equal to a source is no dependence between elements, which the compiler cannot know.
#pragma GCC ivdep
    for (std::size_t i = 0; i < elements; ++i)
      to[i] = Codec::store(finish<kReduction>(combine<kReduction>(Codec::load(a[i]), Codec::load(b[i])), 2));
    return;
  }
  constexpr std::size_t kBlock = 1024;
  W sum[kBlock];
  [[maybe_unused]] W wide[kBlock];
  for (std::size_t begin = 0; begin < elements; begin += kBlock) {
    const std::size_t count = std::min(kBlock, elements - begin);
    load_block<Codec>(static_cast<const S*>(sources[0]) + begin, sum, count);
    for (std::size_t source = 1; source < n; ++source) {
      const auto* next = static_cast<const S*>(sources[source]) + begin;
      if constexpr (std::is_same_v<S, W>) {
        for (std::size_t i = 0; i < count; ++i) sum[i] = combine<kReduction>(sum[i], next[i]);
      } else {
        load_block<Codec>(next, wide, count);
        for (std::size_t i = 0; i < count; ++i) sum[i] = combine<kReduction>(sum[i], wide[i]);
      }
    }
    for (std::size_t i = 0; i < count; ++i) sum[i] = finish<kReduction>(sum[i], n);
    store_block<Codec>(sum, to + begin, count);
  }
}

template <typename Codec>
Reducer pick(Reduction reduction) {
  switch (reduction) {
    case Reduction::sum: return &reduce<Codec, Reduction::sum>;
    case Reduction::prod: return &reduce<Codec, Reduction::prod>;
    case Reduction::max: return &reduce<Codec, Reduction::max>;
    case Reduction::min: return &reduce<Codec, Reduction::min>;
    case Reduction::avg: return &reduce<Codec, Reduction::avg>;
  }
  return nullptr;
}

}  // namespace

Reducer find(DType dtype, Reduction reduction) {
  switch (dtype) {
    case DType::f32: return pick<Native<float>>(reduction);
    case DType::f64: return pick<Native<double>>(reduction);
    case DType::f16: return pick<Float16>(reduction);
    case DType::bf16: return pick<BFloat16>(reduction);
    case DType::f8e4m3: return pick<SmallFloat<std::uint8_t, 4, 3, true>>(reduction);
    case DType::f8e5m2: return pick<SmallFloat<std::uint8_t, 5, 2, false>>(reduction);
    case DType::i8: return pick<Native<std::int8_t>>(reduction);
    case DType::u8: return pick<Native<std::uint8_t>>(reduction);
    case DType::i16: return pick<Native<std::int16_t>>(reduction);
    case DType::u16: return pick<Native<std::uint16_t>>(reduction);
    case DType::i32: return pick<Native<std::int32_t>>(reduction);
    case DType::u32: return pick<Native<std::uint32_t>>(reduction);
    case DType::i64: return pick<Native<std::int64_t>>(reduction);
    case DType::u64: return pick<Native<std::uint64_t>>(reduction);
    case DType::boolean:
    case DType::i4:
    case DType::u4: break;
  }
  return nullptr;
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem {
HWY_EXPORT(find);
Reducer find_reducer(DType dtype, Reduction reduction) { return HWY_DYNAMIC_DISPATCH(find)(dtype, reduction); }
}  // namespace tandem
#endif
