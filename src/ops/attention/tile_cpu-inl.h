// What attention does to a few rows on vectors: small products, and the running softmax. Included once per target through foreach_target.h,
// hence the guard that toggles.
#if defined(TANDEM_TILE_CPU_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_TILE_CPU_INL
#undef TANDEM_TILE_CPU_INL
#else
#define TANDEM_TILE_CPU_INL
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/numeric.h"
#include "ops/vector_cpu-inl.h"

#ifndef TANDEM_ATTENTION_TILE
#define TANDEM_ATTENTION_TILE
namespace tandem::attention {
inline constexpr std::int64_t kTile = 6;  // queries of one micro-kernel
}
#endif

HWY_BEFORE_NAMESPACE();
namespace tandem::attention {
namespace HWY_NAMESPACE {

using namespace tandem::HWY_NAMESPACE;

constexpr int kVectors = HWY_MAX_BYTES >= 64 && HWY_TARGET == HWY_AVX3 ? 4 : 2;  // of one micro-kernel

// c[kRows, n] (+)= a[kRows, k]·b[k, n] for kCount vectors of columns, of which the last has `part` lanes if kPart.
template <int kRows, int kCount, bool kPart>
HWY_INLINE void multiply(const float* HWY_RESTRICT a, std::int64_t a_step, const float* HWY_RESTRICT b, std::int64_t b_step,
                         float* HWY_RESTRICT c, std::int64_t c_step, std::int64_t k, bool add, std::size_t part) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  V32 sum[kRows][kCount];
  const auto at = [&](const float* p, int j) {
    const float* from = p + static_cast<std::size_t>(j) * lanes;
    return kPart && j == kCount - 1 ? load_part(d, from, part) : hn::LoadU(d, from);
  };
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kCount; ++j) sum[i][j] = add ? at(c + i * c_step, j) : hn::Zero(d);
  for (std::int64_t l = 0; l < k; ++l, b += b_step) {
    V32 line[kCount];
    for (int j = 0; j < kCount; ++j) line[j] = at(b, j);
    for (int i = 0; i < kRows; ++i) {
      const V32 x = hn::Set(d, a[i * a_step + l]);
      for (int j = 0; j < kCount; ++j) sum[i][j] = hn::MulAdd(x, line[j], sum[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kCount; ++j) {
      float* to = c + i * c_step + static_cast<std::size_t>(j) * lanes;
      if (kPart && j == kCount - 1) store_part(d, sum[i][j], to, part);
      else hn::StoreU(sum[i][j], d, to);
    }
}

template <int kRows>
void multiply_columns(const float* a, std::int64_t a_step, const float* b, std::int64_t b_step, float* c, std::int64_t c_step,
                      std::int64_t k, std::int64_t n, bool add) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(F32()));
  std::int64_t j = 0;
  for (; j + kVectors * lanes <= n; j += kVectors * lanes)
    multiply<kRows, kVectors, false>(a, a_step, b + j, b_step, c + j, c_step, k, add, 0);
  for (; j + 2 * lanes <= n; j += 2 * lanes) multiply<kRows, 2, false>(a, a_step, b + j, b_step, c + j, c_step, k, add, 0);
  for (; j + lanes <= n; j += lanes) multiply<kRows, 1, false>(a, a_step, b + j, b_step, c + j, c_step, k, add, 0);
  if (j < n) multiply<kRows, 1, true>(a, a_step, b + j, b_step, c + j, c_step, k, add, static_cast<std::size_t>(n - j));
}

// c[rows, n] (+)= a[rows, k]·b[k, n] for rows ≤ kTile.
inline void multiply_tile(std::int64_t rows, const float* a, std::int64_t a_step, const float* b, std::int64_t b_step, float* c,
                          std::int64_t c_step, std::int64_t k, std::int64_t n, bool add) {
  if (rows == kTile) return multiply_columns<kTile>(a, a_step, b, b_step, c, c_step, k, n, add);
  std::int64_t i = 0;
  for (; i + 2 <= rows; i += 2) multiply_columns<2>(a + i * a_step, a_step, b, b_step, c + i * c_step, c_step, k, n, add);
  if (i < rows) multiply_columns<1>(a + i * a_step, a_step, b, b_step, c + i * c_step, c_step, k, n, add);
}

// One row of scores [count] against the running maximum: leaves exp(score − top) there and zeros up to `all`, updates top and
// total, and returns what the sums so far must be multiplied by.
inline float update_row(float* scores, std::int64_t count, std::int64_t all, const float* bias, float softcap, float& top, float& total) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V32 lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  V32 tops = lowest;
  for (std::int64_t j = 0; j < count; j += lanes) {
    V32 s = hn::LoadU(d, scores + j);
    if (softcap > 0) s = hn::Mul(hn::Set(d, softcap), tanh(d, hn::Mul(s, hn::Set(d, 1 / softcap))));
    if (bias) {
      const V32 more = hn::LoadU(d, bias + j);
      s = hn::IfThenElse(hn::Eq(more, lowest), lowest, hn::Add(s, more));  // what is masked may be anything
    }
    if (j + lanes > count) s = hn::IfThenElse(hn::FirstN(d, static_cast<std::size_t>(count - j)), s, lowest);
    tops = hn::Max(s, tops);  // in this order NaN leaves the maximum alone
    hn::StoreU(s, d, scores + j);
  }
  const float new_top = std::max(top, hn::GetLane(hn::MaxOfLanes(d, tops)));
  const bool nothing = new_top == -std::numeric_limits<float>::infinity();
  const V32 shift = hn::Set(d, nothing ? 0.0f : new_top);
  V32 sum = hn::Zero(d);
  for (std::int64_t j = 0; j < count; j += lanes) {
    const V32 e = exp_below(d, hn::Sub(hn::LoadU(d, scores + j), shift));
    sum = hn::Add(sum, e);
    hn::StoreU(e, d, scores + j);
  }
  for (std::int64_t j = round_up(count, lanes); j < all; ++j) scores[j] = 0;
  const bool first = top == -std::numeric_limits<float>::infinity();  // nothing to keep yet
  const float kept = nothing || top == new_top ? 1.0f : first ? 0.0f : std::exp(top - new_top);
  total = total * kept + hn::GetLane(hn::SumOfLanes(d, sum));
  top = new_top;
  return kept;
}

inline void scale_row(float* x, std::int64_t n, float by) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V32 factor = hn::Set(d, by);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Mul(hn::LoadU(d, x + i), factor), d, x + i);
  for (; i < n; ++i) x[i] *= by;
}

template <typename T>
void read_row(const T* from, float* to, std::int64_t n) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(load(d, from + i), d, to + i);
  if (i < n) store_part(d, load_part(d, from + i, static_cast<std::size_t>(n - i)), to + i, static_cast<std::size_t>(n - i));
}

// False if an element is infinite or no number; `to` is written all the same.
template <typename T>
bool write_row(const float* from, float by, T* to, std::int64_t n) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V32 factor = hn::Set(d, by);
  V32 check = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const V32 v = hn::Mul(hn::LoadU(d, from + i), factor);
    check = hn::MulAdd(v, hn::Zero(d), check);
    store(d, v, to + i);
  }
  if (i < n) {
    const V32 v = hn::Mul(load_part(d, from + i, static_cast<std::size_t>(n - i)), factor);
    check = hn::MulAdd(v, hn::Zero(d), check);
    store_part(d, v, to + i, static_cast<std::size_t>(n - i));
  }
  return hn::AllTrue(d, hn::Eq(check, hn::Zero(d)));
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem::attention
HWY_AFTER_NAMESPACE();

#endif
