#pragma once

#include <cstdint>

namespace tandem {

// What a product may apply to its result, in the order of MatMul's words.
enum class Activation : std::uint8_t { none, gelu, gelu_tanh, silu, relu, tanh, sigmoid };

}  // namespace tandem
