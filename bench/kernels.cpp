// Every CPU kernel alone on one thread, one row each: time, floating-point work or memory traffic, and a copy of the same bytes.
//
//   bench_kernels [WORD]      only rows whose kernel or label holds WORD
//
// Inputs are random; the output of the timed kernel is compared with the op's plain evaluator, and a difference ends the program with 1.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>

#include "core/check.h"
#include "kernels/kernel_case.h"
#include "ops/shape_rules.h"
#include "peers/timing.h"

namespace {

using namespace tandem;
using test::KernelCase;
using test::random_tensor;

struct Row {
  std::string label;
  KernelCase call;
  double flops = 0;  // 0: the row is about bytes
};

constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16};

Row matmul(const char* kernel, DType type, std::int64_t m, std::int64_t k, std::int64_t n, const char* activation = "none") {
  Row row;
  row.label = fmt::format("{} {}x{}x{} {}", to_string(type), m, k, n, activation);
  row.call = {.kernel = kernel, .op = "MatMul", .attributes = {{"activation", std::string(activation)}}, .weights = {1}};
  row.call.operands = {random_tensor(type, {m, k}, 1), random_tensor(type, {k, n}, 2, 1 / std::sqrt(static_cast<double>(k))),
                       random_tensor(type, {n}, 3)};
  row.flops = 2.0 * static_cast<double>(m * k * n);
  return row;
}

Row attention(DType type, std::int64_t batch, std::int64_t heads, std::int64_t rows, std::int64_t size, bool masked) {
  Row row;
  row.label = fmt::format("{} {}x{}x{}x{}{}", to_string(type), batch, heads, rows, size, masked ? " masked" : "");
  row.call = {.kernel = "flat_attention", .op = "FlatAttention"};
  row.call.attributes = {{"heads", heads},
                         {"kv_heads", heads},
                         {"size", size},
                         {"value_size", size},
                         {"begins", std::vector<std::int64_t>{0, heads * size, 2 * heads * size}},
                         {"scale", 1 / std::sqrt(static_cast<double>(size))}};
  const Tensor packed = random_tensor(type, {batch, rows, 3 * heads * size}, 4);
  row.call.operands = {packed, packed, packed};
  if (masked) row.call.operands.push_back(Tensor(type, {batch, 1, 1, rows}));
  row.flops = 4.0 * static_cast<double>(batch * heads * rows * rows * size);
  return row;
}

Row norm(const char* kernel, const char* op, DType type, std::int64_t rows, std::int64_t length, bool adds) {
  Row row;
  row.label = fmt::format("{} {}x{}", to_string(type), rows, length);
  row.call = {.kernel = kernel, .op = op};
  row.call.operands = {random_tensor(type, {rows, length}, 5)};
  if (adds) row.call.operands.push_back(random_tensor(type, {rows, length}, 6));
  row.call.operands.push_back(random_tensor(type, {length}, 7));
  if (std::string(op).ends_with("LayerNorm")) row.call.operands.push_back(random_tensor(type, {length}, 8));
  return row;
}

Row plain_row(const char* kernel, const char* op, DType type, Shape shape, std::vector<std::pair<std::string, AttributeValue>> attributes,
              int operands = 1) {
  Row row;
  row.label = fmt::format("{} {} {}", op, to_string(type), to_string(shape));
  row.call = {.kernel = kernel, .op = op, .attributes = std::move(attributes)};
  for (int i = 0; i < operands; ++i) row.call.operands.push_back(random_tensor(type, shape, 9 + static_cast<unsigned>(i)));
  return row;
}

Row rotary(DType type, std::int64_t heads, std::int64_t rows, std::int64_t size) {
  Row row = plain_row("rotary_embedding", "RotaryEmbedding", type, {1, heads, rows, size}, {});
  for (const unsigned seed : {10u, 11u}) row.call.operands.push_back(random_tensor(type, {1, rows, size / 2}, seed));
  return row;
}

Row gather(DType type, std::int64_t count, std::int64_t size) {
  Row row = plain_row("gather", "Gather", type, {count, size}, {});
  std::vector<std::int64_t> indices;
  for (std::int64_t i = 0; i < count; ++i) indices.push_back(i * 2654435761 % count);
  row.call.operands.push_back(Tensor::of_ints(DType::i64, {count}, indices));
  return row;
}

std::vector<Row> rows() {
  std::vector<Row> all;
  for (const DType type : kTypes) {
    for (const std::int64_t m : {1, 16, 128}) all.push_back(matmul("onednn_matmul", type, m, 384, 1536, "gelu"));
    all.push_back(matmul("onednn_matmul", type, 128, 1536, 384));
    all.push_back(matmul("onednn_matmul", type, 128, 384, 1152));
    all.push_back(matmul("onednn_matmul", type, 128, 384, 384));
    if (type == DType::f32) all.push_back(matmul("onednn_matmul", type, 1024, 1536, 384));
    if (type == DType::f32) all.push_back(matmul("onednn_matmul", type, 1024, 384, 1536, "gelu"));
    all.push_back(matmul("highway_matmul", type, 128, 384, 384));
    all.push_back(attention(type, 2, 12, 128, 32, true));
    all.push_back(attention(type, 1, 12, 16, 32, true));
    all.push_back(attention(type, 1, 4, 256, 128, false));
    all.push_back(norm("layer_norm", "LayerNorm", type, 1024, 384, false));
    all.push_back(norm("add_layer_norm", "AddLayerNorm", type, 1024, 384, true));
    all.push_back(norm("rms_norm", "RmsNorm", type, 512, 1024, false));
    all.push_back(plain_row("reduce", "Reduce", type, {1024, 384}, {{"axes", std::vector<std::int64_t>{1}}}));
    all.push_back(plain_row("reduce", "Reduce", type, {8, 128, 384}, {{"axes", std::vector<std::int64_t>{1}}}));
    all.push_back(rotary(type, 8, 128, 64));
    all.push_back(gather(type, 1024, 384));
    all.push_back(plain_row("softmax", "Softmax", type, {512, 512}, {}));
    all.push_back(plain_row("pointwise", "Gelu", type, {256, 1536}, {}));
    all.push_back(plain_row("pointwise", "Add", type, {256, 1536}, {}, 2));
    all.push_back(plain_row("transpose", "Transpose", type, {2, 128, 12, 32}, {{"permutation", std::vector<std::int64_t>{0, 2, 1, 3}}}));
    all.push_back(plain_row("transpose", "Transpose", type, {512, 512}, {{"permutation", std::vector<std::int64_t>{1, 0}}}));
  }
  return all;
}

double best_us(double seconds, const auto& body) {
  double best = 1e30;
  const double until = timing::now_us() + seconds * 1e6;
  for (int i = 0; i < 5 || timing::now_us() < until; ++i) {
    const double begin = timing::now_us();
    body();
    best = std::min(best, timing::now_us() - begin);
  }
  return best;
}

double largest_error(const Tensor& actual, const Tensor& expected) {
  double error = 0, largest = 1e-3;
  for (std::int64_t i = 0; i < expected.count(); ++i) largest = std::max(largest, std::fabs(expected.at(i)));
  for (std::int64_t i = 0; i < expected.count(); ++i) error = std::max(error, std::fabs(actual.at(i) - expected.at(i)) / largest);
  return error;
}

// Time of one run; throws if the result is wrong.
double measure(const Row& row, std::size_t& bytes) {
  const KernelCase& c = row.call;
  const KernelDef* kernel = find_kernel(c.kernel);
  if (!kernel) fail(ErrorCode::unsupported, "there is no kernel {} in this build", c.kernel);
  const OpCall call = test::call_of(c);
  std::vector<const std::byte*> operands, weights(c.operands.size(), nullptr);
  for (const auto& operand : c.operands) operands.push_back(operand ? operand->data() : nullptr);
  for (const std::size_t i : c.weights) weights[i] = operands[i];
  const auto packed = kernel->pack ? kernel->pack(call, weights) : nullptr;
  const auto prepared = kernel->prepare({.call = call, .weights = weights, .packed = packed.get(), .threads = 1, .group = nullptr});
  std::vector<Tensor> results;
  std::vector<std::byte*> outputs;
  for (const Type& type : call.results) outputs.push_back(results.emplace_back(type.dtype, shape_of(type)).mutable_data());
  Tensor workspace(DType::u8, {static_cast<std::int64_t>(prepared->workspace_bytes())});
  ThreadPool pool(1);
  const double us = best_us(0.3, [&] {
    prepared->run({operands, outputs, workspace.mutable_data(), pool, Deadline::after(std::chrono::seconds(60))});
  });
  const std::vector<Tensor> expected = test::evaluate(c);
  bytes = 0;
  const std::byte* last = nullptr;
  for (const auto& operand : c.operands)
    if (operand && operand->data() != last) bytes += operand->size_bytes(), last = operand->data();
  for (std::size_t i = 0; i < results.size(); ++i) {
    bytes += results[i].size_bytes();
    const double error = largest_error(results[i], expected[i]);
    if (!(error <= test::tolerance_of(results[i].dtype())))
      fail(ErrorCode::internal, "{} {}: result {} is off by {:.1e}", c.kernel, row.label, i, error);
  }
  return us;
}

// Half of the bytes read, half written.
double copy_us(std::size_t bytes) {
  std::vector<char> from(bytes / 2 + 1, 1), to(bytes / 2 + 1);
  return best_us(0.05, [&] { std::memcpy(to.data(), from.data(), bytes / 2); });
}

}  // namespace

int main(int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "";
  std::printf("%-16s %-36s %10s %9s %8s %14s\n", "kernel", "shape", "us", "GFLOP/s", "GB/s", "copy of it GB/s");
  try {
    for (const Row& row : rows()) {
      if (row.call.kernel.find(word) == std::string::npos && row.label.find(word) == std::string::npos) continue;
      if (!find_kernel(row.call.kernel)) continue;  // a build without oneDNN
      std::size_t bytes = 0;
      const double us = measure(row, bytes), copy = copy_us(bytes), traffic = static_cast<double>(bytes) / 1e3;
      std::printf("%-16s %-36s %10.1f %9.1f %8.1f %14.1f\n", row.call.kernel.c_str(), row.label.c_str(), us, row.flops / us / 1e3,
                  traffic / us, traffic / copy);
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_kernels: %s\n", error.what());
    return 1;
  }
}
