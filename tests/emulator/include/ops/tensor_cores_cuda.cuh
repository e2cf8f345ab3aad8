// In place of src/ops/tensor_cores_cuda.cuh, for emulated GPUs: fragments as PTX lays them over the lanes of a warp.
#pragma once

#include <cmath>

#include "emulator/block.h"
#include "ops/types_cuda.cuh"

namespace tandem::cuda {

inline unsigned shared_address(const void* at) { return emulator::shared_number(at); }

namespace emulated {

// Half `i` of a register.
template <typename T>
float half_of(std::uint64_t registers, int i) {
  const auto bits = static_cast<std::uint16_t>(registers >> 16 * i);
  T value;
  memcpy(&value, &bits, sizeof value);
  return to_float(value);
}

inline std::uint64_t both(unsigned low, unsigned high) { return std::uint64_t{high} << 32 | low; }

// Bytes of row `row` of matrix `matrix`, from lane 8 · matrix + row.
inline const std::byte* row_of(const emulator::Block::Given* given, int matrix, unsigned row) {
  return emulator::shared_place(static_cast<unsigned>(given[8 * static_cast<unsigned>(matrix) + row][0]));
}

}  // namespace emulated

// A lane has columns 2t, 2t + 1 (a[0], a[1]) and 2t + 8, 2t + 9 (a[2], a[3]) of rows g and g + 8 of a; the same rows of columns g of b; and
// columns 2t, 2t + 1 of rows g (c[0], c[1]) and g + 8 (c[2], c[3]); g = lane / 4, t = lane % 4.
template <typename T>
void multiply_fragments(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  using emulated::both;
  const unsigned lane = emulator::Block::here().lane(), g = lane / 4, t = lane % 4;
  const auto* given = emulator::Block::here().exchange({both(a[0], a[2]), both(a[1], a[3]), both(b0, b1)});
  for (int half = 0; half < 2; ++half)
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned from = k % 8 / 2;                     // t of the lanes that have column k of a, row k of b
      const int at = static_cast<int>(k / 8 * 2 + k % 2);  // among four halves
      for (unsigned j = 0; j < 2; ++j)
        c[2 * half + static_cast<int>(j)] += emulated::half_of<T>(given[4 * g + from][static_cast<std::size_t>(half)], at) *
                                             emulated::half_of<T>(given[4 * (2 * t + j) + from][2], at);
    }
}

inline void load_matrices(unsigned (&to)[4], unsigned address) {
  const unsigned lane = emulator::Block::here().lane();
  const auto* given = emulator::Block::here().exchange({address});
  for (int i = 0; i < 4; ++i) memcpy(&to[i], emulated::row_of(given, i, lane / 4) + 4 * (lane % 4), 4);
  emulator::Block::here().meet_in_warp();  // nobody goes on before all have read
}
inline void load_transposed(unsigned (&to)[4], unsigned address) {
  const unsigned lane = emulator::Block::here().lane();
  const auto* given = emulator::Block::here().exchange({address});
  for (int i = 0; i < 4; ++i)
    for (unsigned j = 0; j < 2; ++j)
      memcpy(reinterpret_cast<char*>(&to[i]) + 2 * j, emulated::row_of(given, i, 2 * (lane % 4) + j) + 2 * (lane / 4), 2);
  emulator::Block::here().meet_in_warp();
}

inline void copy_beside(unsigned to, const void* from, int bytes) {
  emulator::Block::here().copies().add(emulator::shared_place(to), from, static_cast<std::size_t>(bytes), 16);
}
inline void bring_near(const void*, int) {}
inline void end_copies() { emulator::Block::here().copies().end_group(); }
template <int kLeft>
void wait_for_copies_but() {
  emulator::Block::here().copies().wait_but(kLeft);
}
inline void wait_for_copies() { emulator::Block::here().copies().wait(); }

inline float quick_exp2(float x) {
  const float y = std::exp2(x);
  return std::isnormal(y) || std::isnan(y) || std::isinf(y) ? y : 0.0f;
}

}  // namespace tandem::cuda
