// Rows: a block of a row-major tensor along one axis, seen as equal rows of contiguous bytes at a stride.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "comm/shm/stream_copy.h"

namespace tandem::shm {

template <typename Byte>
struct Rows {
  Byte* data;
  std::size_t row;     // bytes of one
  std::size_t stride;  // bytes from one to the next
  std::size_t count;

  std::size_t bytes() const { return row * count; }
  bool contiguous() const { return count <= 1 || row == stride; }
};

// Part `index` of `parts` equal parts of `axis`. `dims` are those of the whole tensor at `data`.
template <typename Byte>
Rows<Byte> block_of(Byte* data, std::span<const std::int64_t> dims, int axis, std::size_t parts, std::size_t index, std::size_t element) {
  std::size_t outer = 1, inner = element;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    const auto extent = static_cast<std::size_t>(dims[i]);
    if (static_cast<int>(i) < axis) outer *= extent;
    else inner *= extent;
  }
  const std::size_t row = inner / parts;
  return {data + index * row, row, inner, outer};
}

// Calls visit(pointer, offset, bytes) for the pieces of bytes [begin, end) of the block, counted as if its rows lay together;
// `offset` counts from `begin`.
template <typename Byte, typename Visit>
void for_pieces(const Rows<Byte>& rows, std::size_t begin, std::size_t end, Visit visit) {
  if (begin >= end) return;
  if (rows.contiguous()) return visit(rows.data + begin, std::size_t{0}, end - begin);
  std::size_t row = begin / rows.row, column = begin % rows.row;
  for (std::size_t at = begin; at < end; ++row, column = 0) {
    const std::size_t length = std::min(rows.row - column, end - at);
    visit(rows.data + row * rows.stride + column, at - begin, length);
    at += length;
  }
}

// Into a slot.
inline void pack(const Rows<const std::byte>& from, std::size_t begin, std::size_t end, std::byte* to) {
  for_pieces(from, begin, end, [&](const std::byte* piece, std::size_t offset, std::size_t n) { stream_copy(to + offset, piece, n); });
}

inline void unpack(const std::byte* from, const Rows<std::byte>& to, std::size_t begin, std::size_t end) {
  for_pieces(to, begin, end, [&](std::byte* piece, std::size_t offset, std::size_t n) { std::memcpy(piece, from + offset, n); });
}

}  // namespace tandem::shm
