#include "ops/layout/copy_cpu.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"

namespace tandem {
namespace {

// One line of a few elements a step apart.
template <typename T>
void copy_line(const std::byte* from, std::byte* to, std::int64_t count, std::int64_t step) {
  const T* in = reinterpret_cast<const T*>(from);
  T* out = reinterpret_cast<T*>(to);
  if (step == 0) std::fill_n(out, count, *in);
  else
    for (std::int64_t i = 0; i < count; ++i) out[i] = in[i * step];
}

// Lines whose neighbours lie next to each other in the source: a transposition, in tiles so that both sides stay in the cache.
template <typename T>
void copy_tiles(const std::byte* from, std::byte* to, std::int64_t lines, std::int64_t line_step, std::int64_t count, std::int64_t step) {
  constexpr std::int64_t kTile = 16;
  const T* in = reinterpret_cast<const T*>(from);
  T* out = reinterpret_cast<T*>(to);
  for (std::int64_t l = 0; l < lines; l += kTile)
    for (std::int64_t i = 0; i < count; i += kTile) {
      const std::int64_t lines_end = std::min(l + kTile, lines), end = std::min(i + kTile, count);
      for (std::int64_t j = i; j < end; ++j)
        for (std::int64_t m = l; m < lines_end; ++m) out[m * count + j] = in[m * line_step + j * step];
    }
}

template <typename F>
void with_element(std::size_t size, F f) {
  switch (size) {
    case 1: return f(std::uint8_t{});
    case 2: return f(std::uint16_t{});
    case 4: return f(std::uint32_t{});
    case 8: return f(std::uint64_t{});
    default: fail(ErrorCode::internal, "elements of {} bytes", size);
  }
}

constexpr std::int64_t kGrainBytes = 1 << 16;

}  // namespace

StridedCopy::StridedCopy(std::size_t element_bytes, const Shape& shape, const Shape& strides, std::int64_t offset)
    : element_bytes_(element_bytes), offset_(offset), count_(element_count(shape)) {
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] == 1) continue;
    const bool merges = !shape_.empty() && strides_.back() == strides[d] * shape[d];
    if (merges) {
      shape_.back() *= shape[d];
      strides_.back() = strides[d];
    } else {
      shape_.push_back(shape[d]);
      strides_.push_back(strides[d]);
    }
  }
  if (shape_.empty()) return;
  columns_ = shape_.back();
  step_ = strides_.back();
  shape_.pop_back();
  strides_.pop_back();
}

std::int64_t StridedCopy::source_of(std::int64_t line) const {
  std::int64_t at = offset_;
  for (std::size_t d = shape_.size(); d-- > 0; line /= shape_[d]) at += line % shape_[d] * strides_[d];
  return at;
}

void StridedCopy::run(ThreadPool& pool, const std::byte* from, std::byte* to) const {
  if (count_ == 0) return;
  const std::int64_t lines = count_ / columns_;
  const auto size = static_cast<std::int64_t>(element_bytes_);
  const std::int64_t block = shape_.empty() ? 1 : shape_.back();  // lines a constant step apart
  const std::int64_t grain = std::max<std::int64_t>(1, kGrainBytes / (columns_ * size));
  if (lines == 1 && step_ == 1) return copy_bytes(pool, from + offset_ * size, to, static_cast<std::size_t>(columns_ * size));
  pool.split(lines, grain, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t line = begin; line < end;) {
      const std::int64_t run = std::min(end - line, block - line % block);
      const std::int64_t line_step = shape_.empty() ? 0 : strides_.back();
      const std::byte* in = from + source_of(line) * size;
      std::byte* out = to + line * columns_ * size;
      if (step_ == 1) {
        for (std::int64_t i = 0; i < run; ++i)
          std::memcpy(out + i * columns_ * size, in + i * line_step * size, static_cast<std::size_t>(columns_ * size));
      } else {
        with_element(element_bytes_, [&](auto zero) {
          using T = decltype(zero);
          if (line_step == 1 && step_ != 0) return copy_tiles<T>(in, out, run, line_step, columns_, step_);
          for (std::int64_t i = 0; i < run; ++i) copy_line<T>(in + i * line_step * size, out + i * columns_ * size, columns_, step_);
        });
      }
      line += run;
    }
  });
}

void copy_bytes(ThreadPool& pool, const std::byte* from, std::byte* to, std::size_t size) {
  pool.split(static_cast<std::int64_t>(size), 1 << 20, [&](std::int64_t begin, std::int64_t end, int) {
    std::memcpy(to + begin, from + begin, static_cast<std::size_t>(end - begin));
  });
}

}  // namespace tandem
