#include "passes/pipeline.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <vector>

#include "core/check.h"
#include "graph/text.h"
#include "passes/passes.h"
#include "passes/shard.h"

namespace tandem {
namespace {

using namespace passes;

bool run_shard(Module& module, const PassOptions& options) {
  return options.mesh.size() > 1 && shard(module, {options.mesh, options.strategies, options.io});
}

// Cleaning passes appear again where others leave something to clean; each row is one run.
constexpr Pass kPasses[] = {
    {"remove_dead", Phase::simplify, remove_dead, "drops nodes, weights and sources nobody needs"},
    {"fold_shapes", Phase::simplify, fold_shapes, "integer values that follow from the input shapes become Dims"},
    {"fold_constants", Phase::simplify, fold_constants, "computes nodes whose operands are all known"},
    {"fold_positions", Phase::simplify, fold_positions, "counting, comparing and looking up positions becomes Iota, constants, slices"},
    {"fold_weights", Phase::simplify, fold_weights, "Transpose, Reshape, Slice, Pad, Concat and Cast of weights become recipes"},
    {"fold_scales", Phase::simplify, fold_scales,
     "a scale per channel after a convolution moves into the weight, what is added into one bias"},
    {"cleanup", Phase::simplify, cleanup, "drops steps that change nothing and joins neighbours of one kind"},
    {"merge_equal", Phase::simplify, merge_equal, "computes equal things once"},
    {"fuse_dequantize", Phase::simplify, fuse_dequantize, "products with dequantised weights become DequantMatMul"},
    {"fuse_quantized", Phase::simplify, fuse_quantized, "those of dequantised activations become QuantMatMul, which multiplies codes"},
    {"unflatten_products", Phase::simplify, unflatten_products, "flatten, product, unflatten becomes a product of rank 3 or more"},
    {"recognise_gelu", Phase::simplify, recognise_gelu, "GELU written with Erf or Tanh becomes Gelu"},
    {"recognise_silu", Phase::simplify, recognise_silu, "x * sigmoid(x) becomes Silu"},
    {"recognise_norm", Phase::simplify, recognise_norm, "LayerNorm and RmsNorm written with ReduceMean"},
    {"split_packed", Phase::simplify, split_packed, "a product that is sliced along its columns becomes several products"},
    {"split_heads", Phase::simplify, split_heads, "the same where q, k and v are picked after the columns were opened by heads"},
    {"recognise_attention", Phase::simplify, recognise_attention, "product, mask, softmax, product becomes Attention"},
    {"fold_weights", Phase::simplify, fold_weights, "again, for the weights that were split"},
    {"refine_attention", Phase::simplify, refine_attention, "causal masks and repeated heads become attributes of Attention"},
    {"recognise_rotary", Phase::simplify, recognise_rotary, "x * cos + rotated x * sin becomes RotaryEmbedding"},
    {"cleanup", Phase::simplify, cleanup, "again, after recognition"},
    {"merge_equal", Phase::simplify, merge_equal, "again, after recognition"},
    {"remove_dead", Phase::simplify, remove_dead, "again, after recognition"},
    {"lower_precision", Phase::simplify, lower_precision,
     "with a dtype asked for: products and what lies between them by explicit Casts; norms and softmax stay f32"},
    {"fold_weights", Phase::simplify, fold_weights, "again, for the weights that were cast"},
    {"remove_dead", Phase::simplify, remove_dead, "again, after casting"},
    {"quantize_weights", Phase::simplify, quantize_weights,
     "with a type asked for: matrices of products become int8, int4 or fp8 with scales"},
    {"remove_dead", Phase::simplify, remove_dead, "again, for the weights that were quantised"},
    {"shard", Phase::shard, run_shard, "rewrites the program for one rank of the mesh"},
    {"reduce_terms", Phase::fuse, reduce_terms, "an all-reduced sum, one term of which is known, is that plus the other term all-reduced"},
    {"fuse_epilogue", Phase::fuse, fuse_epilogue, "bias, activation and residual move into the product"},
    {"channels_last", Phase::fuse, channels_last, "if asked for: images between convolutions have their channels in the last dimension"},
    {"merge_gates", Phase::fuse, merge_gates, "a gate and what it gates become one product"},
    {"fuse_add_norm", Phase::fuse, fuse_add_norm, "Add and norm become one node"},
    {"fuse_reduce_norm", Phase::fuse, fuse_reduce_norm, "all-reduce, Add and norm become one node"},
    {"rotate_before_transpose", Phase::fuse, rotate_before_transpose, "heads are rotated before they are transposed"},
    {"flatten_attention", Phase::fuse, flatten_attention, "attention reads and writes rows of the products around it, without transposes"},
    {"merge_attention_products", Phase::fuse, merge_attention_products, "the products that make q, k and v become one"},
    {"fuse_pointwise", Phase::fuse, fuse_pointwise, "chains of element-wise nodes become one node"},
    {"merge_equal", Phase::fuse, merge_equal, "again, for what shard inserted twice"},
    {"remove_dead", Phase::fuse, remove_dead, "again, after fusion"},
};

void dump(const Module& module, const std::filesystem::path& folder, std::size_t number, std::string_view name) {
  if (folder.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::filesystem::path path = folder / fmt::format("{:02}_{}.txt", number, name);
  std::ofstream file(path);
  file << print(module);
  if (!file.flush()) fail(ErrorCode::io, "cannot write {}", path.string());
}

}  // namespace

std::string_view to_string(Phase phase) {
  switch (phase) {
    case Phase::simplify: return "simplify";
    case Phase::shard: return "shard";
    case Phase::fuse: break;
  }
  return "fuse";
}

std::span<const Pass> all_passes() { return kPasses; }

const Pass& pass_named(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Pass& pass : kPasses) {
    if (pass.name == name) return pass;
    if (std::ranges::find(names, pass.name) == names.end()) names.push_back(pass.name);
  }
  fail(ErrorCode::invalid_argument, "there is no pass '{}'; the passes are {}", name, fmt::join(names, ", "));
}

void run_pipeline(Module& module, const PipelineOptions& options) {
  for (const std::string& name : options.disabled) pass_named(name);
  dump(module, options.dump, 0, "import");
  std::size_t number = 0;
  for (const Pass& pass : kPasses) {
    if (!options.phases.contains(pass.phase) || options.disabled.contains(std::string(pass.name))) continue;
    const auto start = std::chrono::steady_clock::now();
    const bool changed = pass.run(module, options.pass);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    dump(module, options.dump, ++number, pass.name);
    if (options.verify) try {
        verify(module);
      } catch (const Error& error) {
        throw Error(ErrorCode::internal, fmt::format("pass {} broke the module: {}", pass.name, error.what()), error.node());
      }
    if (options.timing) options.timing(pass, seconds.count(), changed);
  }
}

}  // namespace tandem
