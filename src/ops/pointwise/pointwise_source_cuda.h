// CUDA C++ for a pointwise program: source text that NVRTC compiles, and the arguments its kernel takes. The text depends on how operands
// lie beside the result but not on extents, so that one kernel serves many shapes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/pointwise/program.h"

namespace tandem::pointwise {

inline constexpr int kMostOperands = 16, kMostDims = 8;
inline constexpr unsigned kPointwiseThreads = 256;  // of a block

// Where an operand's element lies, for the vector of result elements of a thread.
enum class Way : std::uint8_t {
  dense,    // as the result's do
  scalar,   // there is one
  rows,     // beside each other, from a place that depends on the outer dimensions
  columns,  // one for the whole vector, its place depends on the outer dimensions
  strided,  // anywhere; vectors are of one element
};

struct PointwiseForm {
  Program program;
  std::vector<DType> dtypes;  // of operands
  std::vector<Way> ways;
  DType result = DType::f32;
  int vector = 1;     // elements a thread makes: 1, 2, 4 or 8
  int dims = 0;       // outer dimensions that places depend on
  bool wide = false;  // whether indices take 64 bits
};

// The kernel's one argument.
struct PointwiseArgs {
  const void* in[kMostOperands];
  void* out;
  void* fault;                                         // a Fault: division of an integer by zero
  std::uint64_t count, vectors;                        // elements of the result, and threads that make them
  std::uint64_t inner;                                 // vectors along the innermost dimension
  std::uint64_t extents[kMostDims];                    // of the outer dimensions, outermost first
  std::int64_t strides[kMostOperands][kMostDims + 1];  // of operands in elements; last: along the innermost dimension
  // i / extent = (umulhi(i, multiplier) + i) >> shift for i < 2^31: of the innermost and of the outer dimensions.
  std::uint32_t inner_multiplier, inner_shift, multipliers[kMostDims], shifts[kMostDims];
  std::uint32_t aligned;  // whether vectors may be moved whole
};

// The definition of the kernel `name`. Void where the program holds a type that the text cannot: see can_be_source().
std::string pointwise_kernel(const PointwiseForm& form, const std::string& name);
// What such kernels stand on: types and functions, but for how 16-bit floats are converted; and that, for GPUs.
std::string pointwise_prelude();
std::string pointwise_conversions();
bool can_be_source(DType type);

}  // namespace tandem::pointwise
