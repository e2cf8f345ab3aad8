// Every pass, one function and one file each. A pass keeps what the module computes, says whether it changed anything,
// and may leave dead nodes behind. The list, with order and documentation, is pipeline.cpp.
#pragma once

#include "graph/graph.h"

namespace tandem {

struct PassOptions;

namespace passes {

// simplify
bool fold_constants(Module& module, const PassOptions& options);
bool fold_shapes(Module& module, const PassOptions& options);
bool fold_positions(Module& module, const PassOptions& options);
bool fold_weights(Module& module, const PassOptions& options);
bool fold_scales(Module& module, const PassOptions& options);
bool cleanup(Module& module, const PassOptions& options);
bool merge_equal(Module& module, const PassOptions& options);
bool remove_dead(Module& module, const PassOptions& options);
bool fuse_dequantize(Module& module, const PassOptions& options);
bool fuse_quantized(Module& module, const PassOptions& options);
bool unflatten_products(Module& module, const PassOptions& options);
bool split_packed(Module& module, const PassOptions& options);
bool split_heads(Module& module, const PassOptions& options);
bool recognise_gelu(Module& module, const PassOptions& options);
bool recognise_silu(Module& module, const PassOptions& options);
bool recognise_norm(Module& module, const PassOptions& options);
bool recognise_attention(Module& module, const PassOptions& options);
bool refine_attention(Module& module, const PassOptions& options);
bool recognise_rotary(Module& module, const PassOptions& options);

// fuse
bool quantize_weights(Module& module, const PassOptions& options);
bool lower_precision(Module& module, const PassOptions& options);
bool reduce_terms(Module& module, const PassOptions& options);
bool fuse_add_norm(Module& module, const PassOptions& options);
bool fuse_reduce_norm(Module& module, const PassOptions& options);
bool rotate_before_transpose(Module& module, const PassOptions& options);
bool merge_gates(Module& module, const PassOptions& options);
bool fuse_pointwise(Module& module, const PassOptions& options);
bool channels_last(Module& module, const PassOptions& options);
bool fuse_epilogue(Module& module, const PassOptions& options);
bool flatten_attention(Module& module, const PassOptions& options);
bool merge_attention_products(Module& module, const PassOptions& options);

}  // namespace passes
}  // namespace tandem
