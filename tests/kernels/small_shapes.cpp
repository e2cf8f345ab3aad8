#include "kernels/small_shapes.h"

#include <cmath>

#include "ops/attention/operands.h"
#include "ops/quantize/operands.h"

namespace tandem::test {
namespace {

using Ints = std::vector<std::int64_t>;
using Attributes = std::vector<std::pair<std::string, AttributeValue>>;
using Operands = std::vector<std::optional<Tensor>>;
constexpr DType f16 = DType::f16, bf16 = DType::bf16, f32 = DType::f32, f64 = DType::f64, i32 = DType::i32, i64 = DType::i64;

KernelCase of(const char* op, Operands operands, Attributes attributes = {}) {
  return {.op = op, .attributes = std::move(attributes), .operands = std::move(operands), .threads = 2};
}

Tensor random(DType dtype, Shape shape) {
  static unsigned seed = 0;
  return random_tensor(dtype, std::move(shape), ++seed);
}

Tensor ints(Shape shape, std::int64_t below) {
  Ints values;
  for (std::int64_t i = 0; i < element_count(shape); ++i) values.push_back(i * 7 % below);
  return Tensor::of_ints(i64, std::move(shape), values);
}

std::vector<Dim> dims(const Ints& values) { return {values.begin(), values.end()}; }

KernelCase norm(const char* op, DType dtype, std::int64_t n) {
  Operands operands = {random(dtype, {3, n})};
  const std::string_view name = op;
  if (name.starts_with("Add")) operands.emplace_back(random(dtype, {3, n}));
  operands.emplace_back(random(dtype, {n}));
  if (name.ends_with("LayerNorm")) operands.emplace_back(random(dtype, {n}));
  return of(op, std::move(operands));
}

KernelCase reduce(const char* op, DType dtype, Shape shape, std::int64_t axis) {
  const bool is_reduce = op == std::string_view("Reduce");
  return of(op, {random(dtype, std::move(shape))}, is_reduce ? Attributes{{"axes", Ints{axis}}} : Attributes{{"axis", axis}});
}

KernelCase top_k(std::int64_t length, std::int64_t k) { return of("TopK", {random(f32, {3, length})}, {{"k", Dim(k)}}); }

KernelCase transpose(DType dtype, Shape shape) { return of("Transpose", {random(dtype, std::move(shape))}, {{"permutation", Ints{1, 0}}}); }

// With everything that follows the sums.
KernelCase product(DType dtype, std::int64_t m, std::int64_t k, std::int64_t n, bool weight = false) {
  KernelCase c = of("MatMul", {random(dtype, {m, k}), random(dtype, {k, n}), random(dtype, {n}), random(dtype, {m, n})},
                    {{"activation", std::string("relu")}});
  if (weight) c.weights = {1};
  return c;
}

Tensor scales(Shape shape) {
  Tensor t = random(f32, std::move(shape));
  for (std::int64_t i = 0; i < t.count(); ++i) store_element(f32, t.mutable_data(), i, 0.02 * (0.5 + std::abs(t.at(i))));
  return t;
}

Tensor codes(DType type, Shape shape) { return random_tensor(type, std::move(shape), 5, is_float(type) ? 2 : 3); }

KernelCase dequantised(DType type, std::int64_t m, std::int64_t k, std::int64_t n, std::int64_t block = 32) {
  return of("DequantMatMul", {random(f16, {m, k}), codes(type, {k, n}), random(f16, {n}), random(f16, {m, n}), scales({k / block, n})},
            {{"block_size", block}});
}

KernelCase dequantised_weight(DType type, std::int64_t m, std::int64_t k, std::int64_t n, std::int64_t block) {
  KernelCase c = dequantised(type, m, k, n, block);
  c.weights = {kDequantB, kDequantScale};
  return c;
}

KernelCase quantised(DType type, std::int64_t m) {
  KernelCase c =
      of("QuantMatMul", {codes(type, {m, 64}), codes(type, {64, 48}), random(f16, {48}), random(f16, {m, 48}), scales({48}), scales({1})},
         {{"to", f16}});
  c.weights = {kDequantB};
  return c;
}

struct Heads {
  std::int64_t heads, kv_heads, rows, columns, size;
  bool masked = false;
};

KernelCase attention(DType dtype, const Heads& h) {
  KernelCase c = of("Attention",
                    {random(dtype, {1, h.heads, h.rows, h.size}), random(dtype, {1, h.kv_heads, h.columns, h.size}),
                     random(dtype, {1, h.kv_heads, h.columns, h.size}), std::nullopt, std::nullopt, std::nullopt, std::nullopt},
                    {{"scale", 1 / std::sqrt(static_cast<double>(h.size))}, {"causal", std::string("lower_right")}});
  if (h.masked) c.operands[attention::kMask] = random(dtype, {h.rows, h.columns});
  return c;
}

KernelCase flat_attention(DType dtype, std::int64_t size) {
  const Tensor packed = random(dtype, {1, 70, 4 * 3 * size});
  return of("FlatAttention", {packed, packed, packed},
            {{"heads", std::int64_t{4}},
             {"kv_heads", std::int64_t{4}},
             {"size", size},
             {"value_size", size},
             {"begins", Ints{0, 4 * size, 8 * size}},
             {"scale", 1 / std::sqrt(static_cast<double>(size))}});
}

KernelCase conv(DType dtype, bool last) {
  const Shape x = last ? Shape{2, 9, 9, 16} : Shape{2, 16, 9, 9}, w = last ? Shape{24, 3, 3, 16} : Shape{24, 16, 3, 3},
              y = last ? Shape{2, 9, 9, 24} : Shape{2, 24, 9, 9};
  return of("Conv", {random(dtype, x), random_tensor(dtype, w, 3, 0.1), random(dtype, {24}), random(dtype, y)},
            {{"pads", std::vector<Dim>(4, Dim(1))},
             {"activation", std::string("silu")},
             {"layout", std::string(last ? "channels_last" : "channels_first")}});
}

KernelCase pool(const char* op, bool last) {
  return of(op, {random(f16, last ? Shape{2, 9, 9, 24} : Shape{2, 24, 9, 9})},
            {{"kernel", Ints{3, 3}},
             {"strides", Ints{2, 2}},
             {"pads", std::vector<Dim>(4, Dim(1))},
             {"layout", std::string(last ? "channels_last" : "channels_first")}});
}

KernelCase group_norm(std::int64_t side) {
  return of("GroupNorm", {random(f16, {2, 12, side, side}), random(f16, {12}), random(f16, {12})}, {{"group_size", std::int64_t{4}}});
}

KernelCase scatter(bool repeats) {
  const Tensor where = repeats ? Tensor::of_ints(i64, {4, 1}, Ints{2, 5, 2, 2}) : Tensor::of_ints(i64, {2, 1}, Ints{2, 5});
  return of("ScatterND", {random(f32, {7, 40}), where, random(f32, {where.shape()[0], 40})});
}

}  // namespace

std::vector<SmallShape> small_shapes() {
  return {
      // Rows of one warp, of several, and longer than registers hold.
      {"LayerNorm", "cuda_layer_norm", norm("LayerNorm", f32, 40)},
      {"LayerNormWide", "cuda_layer_norm", norm("LayerNorm", f16, 1024)},
      {"LayerNormLong", "cuda_layer_norm", norm("LayerNorm", f32, 4099)},
      {"RmsNorm", "cuda_rms_norm", norm("RmsNorm", f16, 1024)},
      {"RmsNormLong", "cuda_rms_norm", norm("RmsNorm", f32, 4099)},
      {"AddLayerNorm", "cuda_add_layer_norm", norm("AddLayerNorm", f16, 1024)},
      {"AddLayerNormLong", "cuda_add_layer_norm", norm("AddLayerNorm", f32, 2051)},
      {"AddRmsNorm", "cuda_add_rms_norm", norm("AddRmsNorm", bf16, 1024)},
      {"AddRmsNormLong", "cuda_add_rms_norm", norm("AddRmsNorm", f32, 2051)},
      {"Softmax", "cuda_softmax", of("Softmax", {random(f32, {5, 40})})},
      {"SoftmaxWide", "cuda_softmax", of("Softmax", {random(f16, {3, 2048})})},
      {"SoftmaxLong", "cuda_softmax", of("Softmax", {random(f32, {2, 9001})})},
      {"SoftmaxColumns", "cuda_softmax", of("Softmax", {random(f32, {20, 40})}, {{"axis", std::int64_t{0}}})},
      {"LogSoftmax", "cuda_log_softmax", of("LogSoftmax", {random(f16, {3, 2048})})},
      {"LogSoftmaxLong", "cuda_log_softmax", of("LogSoftmax", {random(f32, {2, 9001})})},
      {"LogSoftmaxColumns", "cuda_log_softmax", of("LogSoftmax", {random(f32, {20, 40})}, {{"axis", std::int64_t{0}}})},

      // Rows by a part of a warp, by several warps, in parts that are joined; columns at once and in parts; what is sorted where.
      {"ReduceShortRows", "cuda_reduce", reduce("Reduce", f32, {40, 30}, 1)},
      {"ReduceRows", "cuda_reduce", reduce("Reduce", f16, {2, 5000}, 1)},
      {"ReduceLongRow", "cuda_reduce", reduce("Reduce", f32, {1, 40000}, 1)},
      {"ReduceColumns", "cuda_reduce", reduce("Reduce", f32, {20, 40}, 0)},
      {"ReduceLongColumns", "cuda_reduce", reduce("Reduce", f16, {900, 40}, 0)},
      {"ReduceIntegers", "cuda_reduce", of("Reduce", {ints({3, 5000}, 100)}, {{"axes", Ints{1}}})},
      {"ArgMax", "cuda_arg_max", reduce("ArgMax", f16, {3, 5000}, 1)},
      {"ArgMaxLong", "cuda_arg_max", reduce("ArgMax", f32, {1, 40000}, 1)},
      {"ArgMin", "cuda_arg_min", reduce("ArgMin", f32, {900, 3}, 0)},
      {"TopKSortsAll", "cuda_top_k", top_k(300, 7)},
      {"TopKInShared", "cuda_top_k", top_k(5000, 20)},
      {"TopKInWorkspace", "cuda_top_k", top_k(5000, 2500)},
      {"CumSumLines", "cuda_cum_sum", reduce("CumSum", f32, {6, 30}, 1)},
      {"CumSumTiles", "cuda_cum_sum", reduce("CumSum", f32, {3, 5000}, 1)},

      // Tiles loaded and stored by vectors, by either, by elements, of 8 bytes; then runs and single elements.
      {"TransposeVectors", "cuda_transpose", transpose(f16, {72, 136})},
      {"TransposeVectorLoads", "cuda_transpose", transpose(f32, {70, 136})},
      {"TransposeVectorStores", "cuda_transpose", transpose(f32, {72, 130})},
      {"TransposeElements", "cuda_transpose", transpose(f16, {71, 131})},
      {"TransposeOf8Bytes", "cuda_transpose", transpose(f64, {40, 36})},
      {"TransposeHeads", "cuda_transpose", of("Transpose", {random(f16, {2, 5, 3, 8})}, {{"permutation", Ints{0, 2, 1, 3}}})},
      {"Slice", "cuda_slice",
       of("Slice", {random(f32, {9, 40})},
          {{"starts", dims({1, 2})}, {"ends", dims({8, 34})}, {"axes", Ints{0, 1}}, {"steps", Ints{1, 2}}})},
      {"Expand", "cuda_expand", of("Expand", {random(f16, {5, 1, 24})}, {{"shape", dims({5, 3, 24})}})},
      {"Concat", "cuda_concat", of("Concat", {random(f16, {5, 7}), random(f16, {5, 12})}, {{"axis", std::int64_t{1}}})},
      {"Reshape", "cuda_reshape", of("Reshape", {random(f16, {5, 8})}, {{"shape", dims({8, 5})}})},
      {"Pad", "cuda_pad", of("Pad", {random(f16, {5, 8})}, {{"pads", dims({1, 2, 3, 4})}, {"mode", std::string("reflect")}})},
      {"Trilu", "cuda_trilu", of("Trilu", {random(f32, {2, 9, 11})})},
      {"Iota", "cuda_iota", of("Iota", {}, {{"offset", Dim(5)}, {"extent", Dim(300)}, {"dtype", i32}})},
      {"Gather", "cuda_gather", of("Gather", {random(f16, {9, 40}), ints({11}, 9)})},
      {"GatherColumns", "cuda_gather", of("Gather", {random(f32, {9, 41}), ints({11}, 41)}, {{"axis", std::int64_t{1}}})},
      {"GatherElements", "cuda_gather_elements", of("GatherElements", {random(f16, {9, 40}), ints({5, 40}, 9)})},
      {"GatherND", "cuda_gather_nd", of("GatherND", {random(f32, {9, 40}), ints({5, 1}, 9)})},
      {"NonZero", "cuda_nonzero", of("NonZero", {random(f16, {3, 40, 70})}, {{"symbol", std::string("n")}})},
      {"ScatterND", "cuda_scatter_nd", scatter(false)},
      {"ScatterNDRepeated", "cuda_scatter_nd", scatter(true)},

      {"MatMul", "cuda_matmul", product(f16, 70, 33, 65)},
      {"MatMulOfDoubles", "cuda_matmul", product(f64, 5, 33, 65)},
      {"MatVecInParts", "cuda_matmul", product(f16, 3, 600, 64)},
      {"MatVec", "cuda_matmul", product(f32, 1, 40, 64)},
      {"PackedMatVec", "cuda_packed_matvec", product(f16, 1, 512, 48, true)},
      {"PackedMatVecOddRows", "cuda_packed_matvec", product(bf16, 1, 1104, 37, true)},
      {"PackedMatMul", "cuda_packed_matmul", product(f16, 16, 512, 48, true)},
      {"PackedMatMulOddRows", "cuda_packed_matmul", product(bf16, 3, 1109, 37, true)},
      {"PackedMatMulInClusters", "cuda_packed_matmul", product(bf16, 9, 4096, 264, true)},
      {"CublasLt", "cublaslt_matmul", product(f16, 9, 64, 96)},
      {"CublasLtTurned", "cublaslt_turned_matmul", product(f16, 9, 64, 96, true)},
      {"CublasLtTurnedOddExtents", "cublaslt_turned_matmul", product(bf16, 9, 37, 65, true)},
      {"CublasLtOddColumns", "cublaslt_matmul", product(f32, 9, 64, 97)},
      {"DequantMatVec", "cuda_dequant_matmul", dequantised(DType::i8, 2, 256, 64)},
      {"DequantMatVecOf4Bits", "cuda_dequant_matmul", dequantised(DType::i4, 1, 256, 64)},
      {"DequantMatVecOfSmallFloats", "cuda_dequant_matmul", dequantised(DType::f8e4m3, 4, 256, 64)},
      {"PackedDequant", "cuda_packed_dequant_matmul", dequantised_weight(DType::i8, 16, 256, 40, 256)},
      {"PackedDequantInClusters", "cuda_packed_dequant_matmul", dequantised_weight(DType::u8, 5, 4096, 136, 64)},
      {"PackedDequantOfHalfChunks", "cuda_packed_dequant_matmul", dequantised_weight(DType::i8, 2, 256, 37, 32)},
      {"PackedDequantOf4Bits", "cuda_packed_dequant_matmul", dequantised_weight(DType::i4, 9, 512, 72, 64)},
      {"PackedDequantOf4BitsAndSmallBlocks", "cuda_packed_dequant_matmul", dequantised_weight(DType::u4, 3, 320, 38, 32)},
      {"PackedDequantOfSmallFloats", "cuda_packed_dequant_matmul", dequantised_weight(DType::f8e4m3, 16, 256, 40, 128)},
      {"DequantMatMul", "cuda_dequant_matmul", dequantised(DType::i8, 9, 64, 48)},
      {"QuantMatMulInFloats", "cuda_quant_matmul_in_floats", quantised(DType::i8, 9)},
      {"QuantMatMulOfIntegers", "cublaslt_int8_matmul", quantised(DType::i8, 33)},
      {"QuantMatMulOfSmallFloats", "cublaslt_fp8_matmul", quantised(DType::f8e4m3, 33)},
      {"QuantizeLinear", "cuda_quantize_linear",
       of("QuantizeLinear", {random(f16, {5, 64}), scales({5, 2})},
          {{"axis", std::int64_t{1}}, {"block_size", std::int64_t{32}}, {"to", DType::i8}})},
      {"DequantizeLinear", "cuda_dequantize_linear",
       of("DequantizeLinear", {codes(DType::i4, {5, 64}), scales({5, 2})}, {{"axis", std::int64_t{1}}, {"block_size", std::int64_t{32}}})},

      // Without tensor cores, whole and in parts; on them by lengths of rows, masked; one query over many keys.
      {"AttentionPlain", "cuda_attention", attention(f32, {2, 1, 40, 70, 20})},
      {"AttentionPlainLong", "cuda_attention", attention(f32, {2, 1, 40, 70, 200})},
      {"AttentionPlainInParts", "cuda_attention", attention(f32, {4, 2, 1, 2000, 20})},
      {"Attention64", "cuda_attention", attention(f16, {4, 2, 70, 130, 64})},
      {"Attention128Masked", "cuda_attention", attention(f16, {2, 2, 70, 130, 128, true})},
      {"Attention192", "cuda_attention", attention(f16, {2, 2, 70, 130, 192})},
      {"AttentionDecode64", "cuda_attention", attention(f16, {8, 2, 1, 300, 64})},
      {"AttentionDecode128Masked", "cuda_attention", attention(bf16, {8, 2, 3, 300, 128, true})},
      {"FlatAttention", "cuda_flat_attention", flat_attention(f16, 64)},
      {"FlatAttentionPlain", "cuda_flat_attention", flat_attention(f32, 20)},
      {"RotaryEmbedding", "cuda_rotary_embedding",
       of("RotaryEmbedding", {random(f16, {1, 2, 7, 64}), random(f16, {1, 7, 32}), random(f16, {1, 7, 32})})},
      {"RotaryEmbeddingOfNeighbours", "cuda_rotary_embedding",
       of("RotaryEmbedding", {random(f32, {1, 2, 7, 26}), random(f32, {1, 7, 13}), random(f32, {1, 7, 13})}, {{"interleaved", true}})},

      {"Conv", "cuda_conv", conv(f16, false)},
      {"ConvLast", "cuda_conv", conv(f16, true)},
      {"ConvByCudnn", "cudnn_conv", conv(f16, false)},
      {"ConvByCudnnOfFloats", "cudnn_conv", conv(f32, false)},
      {"ConvByCudnnLast", "cudnn_conv", conv(f16, true)},
      {"MaxPool", "cuda_max_pool", pool("MaxPool", false)},
      {"MaxPoolLast", "cuda_max_pool", pool("MaxPool", true)},
      {"AveragePool", "cuda_average_pool", pool("AveragePool", false)},
      {"GroupNorm", "cuda_group_norm", group_norm(5), 4},
      {"GroupNormVectors", "cuda_group_norm", group_norm(8), 4},
      {"Resize", "cuda_resize", of("Resize", {random(f16, {1, 3, 7, 5})}, {{"sizes", dims({9, 4})}, {"mode", std::string("cubic")}})},
      {"Gated", "cuda_gated", of("Gated", {random(f16, {5, 66})})},
      {"Pointwise", "cuda_pointwise", of("Add", {random(f16, {5, 64}), random(f16, {64})})},
      {"ShardSlice", "cuda_shard_slice",
       of("ShardSlice", {random(f16, {9, 40})}, {{"dim", std::int64_t{0}}, {"begin", Dim(6)}, {"length", Dim(4)}})},
  };
}

}  // namespace tandem::test
