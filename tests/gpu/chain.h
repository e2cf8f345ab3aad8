// A stack of products with weights of any size, for tests of what weights take.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tandem/tandem.h"

namespace tandem::testing {

inline Array random_array(DType dtype, const Shape& shape, unsigned seed, float scale) {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  auto* values = new std::vector<float>(static_cast<std::size_t>(count));
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> real(-scale, scale);
  for (float& value : *values) value = real(random);
  if (dtype == DType::f32)
    return {dtype, shape, {reinterpret_cast<std::byte*>(values->data()), [values](const std::byte*) { delete values; }}};
  auto* halves = new std::vector<std::uint16_t>(values->size());  // bf16: the upper half
  for (std::size_t i = 0; i < halves->size(); ++i) {
    std::uint32_t word = 0;
    std::memcpy(&word, &(*values)[i], 4);
    (*halves)[i] = static_cast<std::uint16_t>(word >> 16);
  }
  delete values;
  return {dtype, shape, {reinterpret_cast<std::byte*>(halves->data()), [halves](const std::byte*) { delete halves; }}};
}

// x [rows, width] times so many matrices, each followed by a ReLU. One row of bf16 takes kernels that pack their weights and read them
// early.
inline Engine chain(std::int64_t layers, std::int64_t width, std::int64_t rows, DType dtype) {
  Network network;
  Network::Value x = network.input("x", dtype, {rows, width});
  for (std::int64_t i = 0; i < layers; ++i) {
    const float scale = 2.5f / std::sqrt(static_cast<float>(width));
    const Network::Value w =
        network.weight(fmt::format("w{}", i), random_array(dtype, {width, width}, static_cast<unsigned>(i + 1), scale));
    x = network.add("Relu", {network.add("MatMul", {x, w})});
  }
  network.output("y", x);
  BuildOptions options;
  options.device = "cuda";
  return build(network, options);
}

}  // namespace tandem::testing
