// All-reduce with residual and norm in double, for all who compute it.
#pragma once

#include <cmath>
#include <optional>
#include <vector>

#include "comm/oracle.h"
#include "core/check.h"
#include "core/tensor.h"

namespace tandem::test {

// [rows, length] and [length].
struct ReducedNorm {
  std::vector<Tensor> x;  // by rank
  Tensor residual, scale;
  std::optional<Tensor> offset, bias;
  bool centers = false;  // LayerNorm
};

inline ReducedNorm random_reduced_norm(int ranks, DType dtype, std::int64_t rows, std::int64_t length, bool centers, bool offset,
                                       std::uint64_t seed) {
  ReducedNorm given;
  for (int r = 0; r < ranks; ++r) given.x.push_back(random_input(dtype, {rows, length}, r, seed));
  given.residual = random_input(dtype, {rows, length}, 0, seed + 1);
  given.scale = random_input(dtype, {length}, 0, seed + 2);
  if (offset) given.offset = random_input(dtype, {length}, 0, seed + 3);
  if (centers) given.bias = random_input(dtype, {length}, 0, seed + 4);
  given.centers = centers;
  return given;
}

inline bool agrees(double got, double wanted, double allowed) {
  if (std::isfinite(wanted)) return std::fabs(got - wanted) <= allowed;
  return got == wanted || (std::isnan(got) && std::isnan(wanted));
}

// Throws Error(internal) naming the first element that is wrong. The norm is that of the sum as it was given. `roundings`: of the sum over
// the ranks, one where that is done in f32.
inline void check_reduced_norm(const ReducedNorm& given, const Tensor& y, const Tensor& sum, int roundings = 1) {
  const DType dtype = given.residual.dtype();
  const double unit = dtype == DType::f32 ? 0x1p-23 : dtype == DType::f16 ? 0x1p-10 : 0x1p-7;
  const std::int64_t length = given.scale.count(), rows = length == 0 ? 0 : sum.count() / length;
  for (std::int64_t row = 0; row < rows; ++row) {
    double mean = 0, variance = 0;
    const auto at = [&](std::int64_t i) { return row * length + i; };
    for (std::int64_t i = 0; i < length; ++i) {
      const double residual = given.residual.at(at(i)), offset = given.offset ? given.offset->at(i) : 0;
      double wanted = residual + offset, magnitude = std::fabs(residual) + std::fabs(offset);
      for (const Tensor& of_rank : given.x) wanted += of_rank.at(at(i)), magnitude += std::fabs(of_rank.at(at(i)));
      const double got = sum.at(at(i));
      if (!agrees(got, wanted, (roundings + (dtype == DType::f32 ? 2 : 1)) * unit * magnitude))
        fail(ErrorCode::internal, "sum {} of row {} is {}, wanted {}", i, row, got, wanted);
      mean += got / static_cast<double>(length);
    }
    if (!given.centers) mean = 0;
    for (std::int64_t i = 0; i < length; ++i) variance += (sum.at(at(i)) - mean) * (sum.at(at(i)) - mean) / static_cast<double>(length);
    for (std::int64_t i = 0; i < length; ++i) {
      const double normed = (sum.at(at(i)) - mean) / std::sqrt(variance + 1e-5) * given.scale.at(i),
                   wanted = normed + (given.bias ? given.bias->at(i) : 0);
      const double got = y.at(at(i)), allowed = unit * std::fabs(wanted) + (dtype == DType::f32 ? 2e-5 : 1e-5) * (1 + std::fabs(normed));
      if (!agrees(got, wanted, allowed)) fail(ErrorCode::internal, "norm {} of row {} is {}, wanted {}", i, row, got, wanted);
    }
  }
}

}  // namespace tandem::test
