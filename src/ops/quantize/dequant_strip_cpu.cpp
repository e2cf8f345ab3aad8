#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/quantize/dequant_strip_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway's order: foreach_target first.
#include <algorithm>

#include "ops/quantize/dequant_strip_cpu.h"
#include "ops/quantize/load_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {

constexpr std::int64_t kAlone = 512;  // products that are summed by themselves: one running sum of a long column loses digits

// Two vectors of neighbouring columns. Of 4-bit numbers one holds the even columns, one the odd ones; floats beside them are read and
// written accordingly.
template <typename T>
struct Columns {
  static HWY_INLINE void quantized(F32 d, const T* row, std::int64_t column, V32& first, V32& second) {
    if constexpr (is_pair<T>) {
      load_quantized_pairs(d, row + column / 2, first, second);
    } else {
      first = load_quantized(d, row + column);
      second = load_quantized(d, row + column + static_cast<std::int64_t>(hn::Lanes(d)));
    }
  }
  static HWY_INLINE void floats(F32 d, const float* from, V32& first, V32& second) {
    if constexpr (is_pair<T>) {
      hn::LoadInterleaved2(d, from, first, second);
    } else {
      first = hn::LoadU(d, from);
      second = hn::LoadU(d, from + hn::Lanes(d));
    }
  }
  static HWY_INLINE void store(F32 d, V32 first, V32 second, float* to) {
    if constexpr (is_pair<T>) {
      hn::StoreInterleaved2(first, second, d, to);
    } else {
      hn::StoreU(first, d, to);
      hn::StoreU(second, d, to + hn::Lanes(d));
    }
  }
};

template <typename T>
constexpr std::int64_t kRowElements = is_pair<T> ? kStripColumns / 2 : kStripColumns;

// Sums of a block first, then scaled: the scale is read once per block and column.
template <typename T, int kRows, bool kShifted>
HWY_NOINLINE void multiply(const DequantStrip& s, const float* a, std::int64_t a_step, float* sums) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const T* b = reinterpret_cast<const T*>(s.b);
  for (std::int64_t column = 0; column < kStripColumns; column += 2 * lanes) {
    V32 total[kRows][2];
    for (auto& line : total) line[0] = line[1] = hn::Zero(d);
    for (std::int64_t begin = 0, end = 0; begin < s.k; begin = end) {
      const std::int64_t block = begin / s.block;
      end = std::min({s.k, (block + 1) * s.block, begin + kAlone});
      V32 part[kRows][2];
      for (auto& line : part) line[0] = line[1] = hn::Zero(d);
      V32 zero[2] = {hn::Zero(d), hn::Zero(d)};
      if constexpr (kShifted) Columns<T>::floats(d, s.zeros + block * kStripColumns + column, zero[0], zero[1]);
      for (std::int64_t k = begin; k < end; ++k) {
        V32 w[2];
        Columns<T>::quantized(d, b + k * kRowElements<T>, column, w[0], w[1]);
        if constexpr (kShifted) {
          w[0] = hn::Sub(w[0], zero[0]);
          w[1] = hn::Sub(w[1], zero[1]);
        }
        for (int i = 0; i < kRows; ++i) {
          const V32 x = hn::Set(d, a[i * a_step + k]);
          part[i][0] = hn::MulAdd(x, w[0], part[i][0]);
          part[i][1] = hn::MulAdd(x, w[1], part[i][1]);
        }
      }
      V32 scale[2];
      Columns<T>::floats(d, s.scales + block * kStripColumns + column, scale[0], scale[1]);
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < 2; ++j) total[i][j] = hn::MulAdd(part[i][j], scale[j], total[i][j]);
    }
    for (int i = 0; i < kRows; ++i) Columns<T>::store(d, total[i][0], total[i][1], sums + i * kStripColumns + column);
  }
}

template <typename T>
void multiply_any(const DequantStrip& s, const float* a, std::int64_t a_step, std::int64_t rows, float* sums) {
  if (rows == 4) return s.zeros ? multiply<T, 4, true>(s, a, a_step, sums) : multiply<T, 4, false>(s, a, a_step, sums);
  return s.zeros ? multiply<T, 1, true>(s, a, a_step, sums) : multiply<T, 1, false>(s, a, a_step, sums);
}

template <typename T>
void dequantize_any(const DequantStrip& s, float* floats) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const T* b = reinterpret_cast<const T*>(s.b);
  for (std::int64_t k = 0; k < s.k; ++k) {
    const std::int64_t at = k / s.block * kStripColumns;
    for (std::int64_t column = 0; column < kStripColumns; column += 2 * lanes) {
      V32 w[2], scale[2], zero[2] = {hn::Zero(d), hn::Zero(d)};
      Columns<T>::quantized(d, b + k * kRowElements<T>, column, w[0], w[1]);
      Columns<T>::floats(d, s.scales + at + column, scale[0], scale[1]);
      if (s.zeros) Columns<T>::floats(d, s.zeros + at + column, zero[0], zero[1]);
      for (int j = 0; j < 2; ++j) w[j] = hn::Mul(hn::Sub(w[j], zero[j]), scale[j]);
      Columns<T>::store(d, w[0], w[1], floats + k * kStripColumns + column);
    }
  }
}

// Calls f with a null pointer of the type of a strip.
template <typename F>
void with_strip_type(DType type, const F& f) {
  with_quantized_type(type, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    if constexpr (sizeof(T) == 1) f(t);
  });
}

void multiply_strip_here(const DequantStrip& s, const float* a, std::int64_t a_step, std::int64_t rows, float* sums) {
  with_strip_type(s.type, [&](auto* t) { multiply_any<std::remove_pointer_t<decltype(t)>>(s, a, a_step, rows, sums); });
}

void dequantize_strip_here(const DequantStrip& s, float* floats) {
  with_strip_type(s.type, [&](auto* t) { dequantize_any<std::remove_pointer_t<decltype(t)>>(s, floats); });
}

template <int kRows>
void multiply_float_rows(const float* b, std::int64_t count, const float* a, std::int64_t a_step, float* sums) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t column = 0; column < kStripColumns; column += 2 * lanes) {
    V32 total[kRows][2];
    for (auto& line : total) line[0] = line[1] = hn::Zero(d);
    for (std::int64_t begin = 0; begin < count; begin += kAlone) {
      V32 part[kRows][2];
      for (auto& line : part) line[0] = line[1] = hn::Zero(d);
      for (std::int64_t k = begin; k < std::min(count, begin + kAlone); ++k) {
        const V32 b0 = hn::LoadU(d, b + k * kStripColumns + column), b1 = hn::LoadU(d, b + k * kStripColumns + column + lanes);
        for (int i = 0; i < kRows; ++i) {
          const V32 x = hn::Set(d, a[i * a_step + k]);
          part[i][0] = hn::MulAdd(x, b0, part[i][0]);
          part[i][1] = hn::MulAdd(x, b1, part[i][1]);
        }
      }
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < 2; ++j) total[i][j] = hn::Add(total[i][j], part[i][j]);
    }
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < 2; ++j) hn::StoreU(total[i][j], d, sums + i * kStripColumns + column + j * lanes);
  }
}

void multiply_floats_here(const float* b, std::int64_t k, const float* a, std::int64_t a_step, std::int64_t rows, float* sums) {
  rows == 6 ? multiply_float_rows<6>(b, k, a, a_step, sums) : multiply_float_rows<1>(b, k, a, a_step, sums);
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem {
HWY_EXPORT(multiply_strip_here);
HWY_EXPORT(dequantize_strip_here);
HWY_EXPORT(multiply_floats_here);

void multiply_strip(const DequantStrip& strip, const float* a, std::int64_t a_step, std::int64_t rows, float* sums) {
  HWY_DYNAMIC_DISPATCH(multiply_strip_here)(strip, a, a_step, rows, sums);
}

void dequantize_strip(const DequantStrip& strip, float* floats) { HWY_DYNAMIC_DISPATCH(dequantize_strip_here)(strip, floats); }

void multiply_floats(const float* b, std::int64_t k, const float* a, std::int64_t a_step, std::int64_t rows, float* sums) {
  HWY_DYNAMIC_DISPATCH(multiply_floats_here)(b, k, a, a_step, rows, sums);
}

}  // namespace tandem
#endif
