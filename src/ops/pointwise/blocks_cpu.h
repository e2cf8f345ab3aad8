// The functions of pointwise programs on blocks of elements. In blocks floats and bools (0 and 1) are f32, integers are i64.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/pointwise/program.h"

namespace tandem::pointwise {

inline constexpr std::int64_t kBlockLength = 1024;  // a few blocks fit into the first-level cache

// Whether elements of this dtype are f32 in blocks.
inline bool is_real(DType type) { return is_float(type) || type == DType::boolean; }
// The dtypes that blocks hold without loss of more than a final rounding.
bool is_block_type(DType type);

// y[i] = f(x0[i], x1[i], …); y may be one of the x.
void run_reals(Function function, const float* const* x, float* y, std::int64_t count);
void run_ints(Function function, const std::int64_t* const* x, std::int64_t* y, std::int64_t count);
// Functions of integers that give bools, and Where on integers.
void compare_ints(Function function, const std::int64_t* const* x, float* y, std::int64_t count);
void choose_ints(const float* condition, const std::int64_t* a, const std::int64_t* b, std::int64_t* y, std::int64_t count);
// From a block of values of one dtype to a block of another, with Cast's rounding and saturation.
void cast_block(DType from, const void* x, DType to, void* y, std::int64_t count);

// Memory of a dtype to a block and back. Integers wrap when stored.
void load_block(DType type, const std::byte* from, void* block, std::int64_t count);
void store_block(DType type, const void* block, std::byte* to, std::int64_t count);
void fill_block(DType type, void* block, std::int64_t count);  // repeats its first element
// A number as the first element of a block.
void set_block(DType type, void* block, double number);

}  // namespace tandem::pointwise
