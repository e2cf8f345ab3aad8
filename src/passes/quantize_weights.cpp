// quantize_weights: the matrices of products become int8 or fp8 with a scale per column, or int4 with a scale per block of rows: symmetric,
// the largest magnitude at the end of the range.
#include <algorithm>
#include <cmath>
#include <map>

#include "core/check.h"
#include "core/half.h"
#include "ops/quantize/operands.h"
#include "passes/match.h"
#include "passes/passes.h"
#include "passes/pipeline.h"

namespace tandem::passes {
namespace {

constexpr std::int64_t kLeastElements = 1024;  // smaller matrices stay as they are

struct Quantized {
  Value *matrix = nullptr, *scale = nullptr;
  std::int64_t block = 0;
};

// Rows that share a scale, 0 for all of them; nothing if the ranks could not split them or rows would end inside a byte.
std::optional<std::int64_t> block_for(const Shape& shape, DType to, int ranks) {
  if (bits(to) == 8) return 0;
  if (shape[1] % (2 * ranks) != 0) return std::nullopt;
  for (const std::int64_t block : {64, 32})
    if (shape[0] % (block * ranks) == 0) return block;
  for (const std::int64_t block : {64, 32})
    if (shape[0] % block == 0) return block;
  return std::nullopt;
}

// Scales [blocks, n] for a matrix [k, n] in f32.
std::vector<float> scales_of(const float* w, std::int64_t k, std::int64_t n, std::int64_t block, double most) {
  std::vector<float> scales(static_cast<std::size_t>((k + block - 1) / block * n), 0.0f);
  for (std::int64_t i = 0; i < k; ++i) {
    float* line = scales.data() + i / block * n;
    for (std::int64_t j = 0; j < n; ++j) line[j] = std::max(line[j], std::fabs(w[i * n + j]));
  }
  for (float& s : scales) s = s > 0 ? static_cast<float>(s / most) : 1.0f;
  return scales;
}

Tensor codes_of(const float* w, const Shape& shape, std::int64_t block, const std::vector<float>& scales, DType to) {
  Tensor codes(to, shape);
  std::byte* data = codes.mutable_data();
  const std::int64_t n = shape[1];
  const auto most = static_cast<float>(quantized_range(to).most);
  for (std::int64_t i = 0; i < shape[0]; ++i) {
    const float* line = scales.data() + i / block * n;
    for (std::int64_t j = 0; j < n; ++j) {
      const std::int64_t at = i * n + j;
      const float v = std::max(-most, std::min(most, w[at] / line[j]));
      if (to == DType::i8) data[at] = static_cast<std::byte>(static_cast<std::int8_t>(std::nearbyint(v)));
      else if (to == DType::f8e4m3) data[at] = static_cast<std::byte>(float_to_f8e4m3(v));
      else store_int(to, data, at, static_cast<std::int64_t>(std::nearbyint(v)));
    }
  }
  return codes;
}

class Quantizer {
 public:
  Quantizer(Module& module, DType to, int ranks) : module_(module), to_(to), ranks_(ranks) {}

  bool run(Graph& graph) {
    bool changed = false;
    for (Node* node : graph.node_list()) {
      if (!node->is("MatMul") || !multiplies_weights(*node) || !is_float(node->operand(kDequantB)->type.dtype)) continue;
      changed = rewrite(*node) || changed;
    }
    return changed;
  }

 private:
  bool rewrite(Node& node) {
    const Quantized* with = quantized(*node.operand(kDequantB)->weight());
    if (!with) return false;
    Graph& graph = node.graph();
    std::vector<Value*> operands = node.operands();
    operands.resize(kDequantScale + 1, nullptr);
    operands[kDequantB] = graph.weight_value(*with->matrix->weight());
    operands[kDequantScale] = graph.weight_value(*with->scale->weight());
    const NamedAttributes attributes = {{"activation", node.attributes.text("activation")}, {"block_size", with->block}};
    Value* y = builder_before(node).add("DequantMatMul", operands, attributes);
    y->producer()->note = "weights were quantised";
    graph.replace_uses(node.result(), y);
    return true;
  }

  // Null if it stays.
  const Quantized* quantized(const Weight& weight) {
    const auto found = done_.find(&weight);
    if (found != done_.end()) return found->second.matrix ? &found->second : nullptr;
    Quantized& q = done_[&weight];
    const Shape& shape = weight.recipe->shape;
    if (element_count(shape) < kLeastElements) return nullptr;
    const auto block = block_for(shape, to_, ranks_);
    if (!block) {
      module_.notices.push_back(
          fmt::format("weight '{}' {} stays {}: its rows make no blocks of 32, or its columns no whole bytes on each rank", weight.name,
                      to_string(shape), to_string(weight.recipe->dtype)));
      return nullptr;
    }
    q.block = *block;
    const Tensor w = module_.weight_data(weight).converted(DType::f32);
    const std::int64_t rows = q.block != 0 ? q.block : shape[0];
    const std::vector<float> scales = scales_of(w.as<float>(), shape[0], shape[1], rows, quantized_range(to_).most);
    if (!std::ranges::all_of(scales, [](float s) { return std::isfinite(s); })) return nullptr;
    Tensor scale(DType::f32, q.block != 0 ? Shape{shape[0] / rows, shape[1]} : Shape{shape[1]});
    std::ranges::copy(scales, scale.mutable_as<float>());
    q.matrix = add(weight.name + "." + std::string(to_string(to_)), codes_of(w.as<float>(), shape, rows, scales, to_));
    q.scale = add(weight.name + ".scale", std::move(scale));
    return &q;
  }

  Value* add(std::string name, Tensor data) {
    for (int i = 1; module_.has_source(name); ++i) name = fmt::format("{}.{}", name, i);
    const RecipePtr recipe = Recipe::from_source(name, data.dtype(), data.shape());
    module_.add_source(name, std::move(data));
    return module_.main().weight_value(module_.add_weight(name, recipe, true));
  }

  Module& module_;
  DType to_;
  int ranks_;
  std::map<const Weight*, Quantized> done_;
};

}  // namespace

bool quantize_weights(Module& module, const PassOptions& options) {
  if (!options.weights) return false;
  if (module.refittable)
    fail(ErrorCode::invalid_argument, "weights that are quantised at build cannot be refitted; leave one of the two options out");
  Quantizer quantizer(module, *options.weights, options.mesh.size());
  bool changed = false;
  for (const auto& graph : module.graphs()) changed = quantizer.run(*graph) || changed;
  return changed;
}

}  // namespace tandem::passes
