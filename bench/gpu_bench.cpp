// Kernels of GPUs at sizes that fill the device: time of one call, with what it moves and computes. A server for tools/gpu_check.py, which
// asks for rows here and at a peer in turn.
//
//   gpu_bench --list          the names of the rows
//   gpu_bench                 reads names from stdin, a line each; answers each with a line of JSON
//
// Operands are random and rotated, so that nothing is found in the cache; the first time that a row is asked for, a corner of the result is
// compared with the op's own evaluator.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <tuple>

#include "api/build/measure.h"
#include "core/check.h"
#include "device/device.h"
#include "kernels/kernel_case.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace {

using namespace tandem;
using Json = nlohmann::json;

const Shape kAbsent = {-1};  // of an operand that is not given

struct Work {
  std::string name;
  std::string op;
  std::vector<std::pair<std::string, AttributeValue>> attributes;
  DType dtype = DType::bf16;
  std::vector<Shape> operands;
  std::vector<Shape> corner;  // of the operands, never empty: what the evaluator is given
  double flops = 0;
  double scale = 1;                       // of the random operands
  std::vector<std::size_t> weights = {};  // operands that are weights, which a kernel may keep in a layout of its own
  bool dependent = true;                  // calls start before those before them have ended, where the kernel can
  std::vector<DType> types = {};          // of the operands, where they differ from `dtype`
  bool tf32 = false;                      // operands of f32 may be rounded to it
  DType type_of(std::size_t operand) const { return types.empty() ? dtype : types.at(operand); }
};

std::vector<Work> all_work() {
  constexpr std::int64_t kRows = 65536, kLength = 4096;  // half a GB in, half a GB out
  std::vector<Work> list;
  for (const char* op : {"LayerNorm", "RmsNorm"}) {
    Work work{op, op, {}, DType::bf16, {{kRows, kLength}, {kLength}}, {{4, kLength}, {kLength}}};
    if (op == std::string("LayerNorm")) work.operands.push_back({kLength}), work.corner.push_back({kLength});
    list.push_back(work);
  }
  list.push_back({"AddRmsNorm",
                  "AddRmsNorm",
                  {},
                  DType::bf16,
                  {{kRows, kLength}, {kRows, kLength}, {kLength}},
                  {{4, kLength}, {4, kLength}, {kLength}}});
  list.push_back({"Softmax 4096", "Softmax", {}, DType::bf16, {{kRows, kLength}}, {{4, kLength}}});
  list.push_back({"Softmax 512", "Softmax", {}, DType::bf16, {{kRows * 8, 512}}, {{4, 512}}});
  list.push_back({"Pointwise of six",
                  "Pointwise",
                  {{"program", std::string("t0=Mul(a0,0.5);t1=Tanh(t0);t2=Mul(t1,a0);t3=Add(t2,1);t4=Sigmoid(t3);Mul(t4,a0)")}},
                  DType::bf16,
                  {{kRows, kLength}},
                  {{4, kLength}}});
  list.push_back({"Add", "Add", {}, DType::bf16, {{kRows, kLength}, {kRows, kLength}}, {{4, kLength}, {4, kLength}}});
  list.push_back({"RotaryEmbedding",
                  "RotaryEmbedding",
                  {},
                  DType::bf16,
                  {{8, 32, 8192, 128}, {1, 8192, 64}, {1, 8192, 64}},
                  {{1, 1, 8192, 128}, {1, 8192, 64}, {1, 8192, 64}}});
  list.push_back(
      {"Transpose", "Transpose", {{"permutation", std::vector<std::int64_t>{1, 0}}}, DType::bf16, {{16384, 16384}}, {{512, 384}}});
  list.push_back({"Transpose heads",
                  "Transpose",
                  {{"permutation", std::vector<std::int64_t>{0, 2, 1, 3}}},
                  DType::bf16,
                  {{16, 2048, 32, 128}},
                  {{2, 64, 32, 128}}});
  list.push_back({"Reduce rows", "Reduce", {{"axes", std::vector<std::int64_t>{1}}}, DType::bf16, {{kRows, 8192}}, {{4, 8192}}});
  list.push_back({"Reduce columns", "Reduce", {{"axes", std::vector<std::int64_t>{0}}}, DType::bf16, {{kRows, 8192}}, {{kRows, 4}}});
  for (const auto& [name, dtype] : {std::pair("TopK 64x32000 k 50 f32", DType::f32), std::pair("TopK 64x32000 k 50 bf16", DType::bf16)})
    list.push_back({name, "TopK", {{"k", Dim(50)}}, dtype, {{64, 32000}}, {{4, 32000}}});
  const auto matmul = [&](const char* name, DType dtype, std::int64_t m, std::int64_t k, std::int64_t n) {
    list.push_back({name,
                    "MatMul",
                    {},
                    dtype,
                    {{m, k}, {k, n}},
                    {{std::min<std::int64_t>(m, 4), k}, {k, 16}},
                    2.0 * static_cast<double>(m * k * n),
                    1 / std::sqrt(std::sqrt(static_cast<double>(k))),
                    {1}});
  };
  matmul("MatMul 8192 bf16", DType::bf16, 8192, 8192, 8192);
  matmul("MatMul 2048x14336x4096 bf16", DType::bf16, 2048, 14336, 4096);
  matmul("MatMul 16x4096x4096 bf16", DType::bf16, 16, 4096, 4096);
  matmul("MatMul 2x4096x4096 bf16", DType::bf16, 2, 4096, 4096);
  matmul("MatMul 8x4096x4096 bf16", DType::bf16, 8, 4096, 4096);
  matmul("MatMul 16x4096x1536 bf16", DType::bf16, 16, 4096, 1536);
  matmul("MatMul 16x4096x28672 bf16", DType::bf16, 16, 4096, 28672);
  matmul("MatMul 4096 f32", DType::f32, 4096, 4096, 4096);
  matmul("MatMul 4096 f32 as TF32", DType::f32, 4096, 4096, 4096);
  list.back().tf32 = true;
  matmul("MatMul 1x4096x28672 bf16", DType::bf16, 1, 4096, 28672);
  matmul("MatMul 1x4096x7168 bf16", DType::bf16, 1, 4096, 7168);
  matmul("MatMul 1x4096x1536 bf16", DType::bf16, 1, 4096, 1536);
  // b with a scale per column, or per `block` rows of one; a scale lies near the inverse of the largest code.
  const auto dequant = [&](std::string name, DType codes, std::int64_t m, std::int64_t k, std::int64_t n, std::int64_t block) {
    const auto scales = [&](std::int64_t columns) { return block == 0 ? Shape{columns} : Shape{k / block, columns}; };
    Work work{std::move(name),
              "DequantMatMul",
              {{"block_size", block}},
              DType::bf16,
              {{m, k}, {k, n}, kAbsent, kAbsent, scales(n)},
              {{std::min<std::int64_t>(m, 4), k}, {k, 16}, kAbsent, kAbsent, scales(16)},
              2.0 * static_cast<double>(m * k * n),
              0.1};
    work.weights = {1, 4};
    work.types = {DType::bf16, codes, DType::bf16, DType::bf16, DType::f32};
    list.push_back(work);
  };
  for (const std::int64_t m : {1, 4, 16}) {
    dequant(fmt::format("DequantMatMul {}x4096x28672 i8", m), DType::i8, m, 4096, 28672, 0);
    dequant(fmt::format("DequantMatMul {}x4096x28672 i4", m), DType::i4, m, 4096, 28672, 64);
  }
  for (const std::int64_t m : {1, 16}) dequant(fmt::format("DequantMatMul {}x4096x28672 fp8", m), DType::f8e4m3, m, 4096, 28672, 0);
  dequant("DequantMatMul 2048x4096x14336 i4", DType::i4, 2048, 4096, 14336, 64);
  // Both operands quantised; i8 with a scale per column, 8-bit floats with one, as quantisers give them.
  const auto quant = [&](std::string name, DType codes, std::int64_t m, std::int64_t k, std::int64_t n) {
    const auto scales = [&](std::int64_t columns) { return codes == DType::i8 ? Shape{columns} : Shape{}; };
    Work work{std::move(name),
              "QuantMatMul",
              {{"to", DType::bf16}},
              DType::bf16,
              {{m, k}, {k, n}, kAbsent, kAbsent, scales(n), {}},
              {{std::min<std::int64_t>(m, 4), k}, {k, 16}, kAbsent, kAbsent, scales(16), {}},
              2.0 * static_cast<double>(m * k * n),
              0.1};
    work.weights = {1, 4, 5};
    work.types = {codes, codes, DType::bf16, DType::bf16, DType::f32, DType::f32};
    list.push_back(work);
  };
  for (const auto& [word, codes] : {std::pair("fp8", DType::f8e4m3), std::pair("int8", DType::i8)}) {
    quant(fmt::format("QuantMatMul 8192 {}", word), codes, 8192, 8192, 8192);
    quant(fmt::format("QuantMatMul 2048x14336x4096 {}", word), codes, 2048, 14336, 4096);
    quant(fmt::format("QuantMatMul 16x4096x4096 {}", word), codes, 16, 4096, 4096);
  }
  const auto attention = [&](std::string name, std::int64_t batch, std::int64_t heads, std::int64_t kv_heads, std::int64_t rows,
                             std::int64_t columns, bool causal) {
    Work work{std::move(name),
              "Attention",
              {},
              DType::bf16,
              {{batch, heads, rows, 128}, {batch, kv_heads, columns, 128}, {batch, kv_heads, columns, 128}},
              {{1, 1, std::min<std::int64_t>(rows, 4), 128}, {1, 1, columns, 128}, {1, 1, columns, 128}},
              4.0 * static_cast<double>(batch * heads * rows * columns * 128) / (causal ? 2 : 1)};
    work.attributes = {{"scale", 1 / std::sqrt(128.0)}};
    if (causal) work.attributes.emplace_back("causal", std::string("upper_left"));
    list.push_back(work);
  };
  attention("Attention 8K", 1, 24, 24, 8192, 8192, false);
  attention("Attention 8K causal", 1, 24, 24, 8192, 8192, true);
  attention("Attention 32K", 1, 24, 24, 32768, 32768, false);
  attention("Attention 131K", 1, 24, 24, 131072, 131072, false);
  for (const std::int64_t columns : {1024, 8192, 16384, 32768})
    attention(fmt::format("Attention decode {}", columns), 1, 32, 8, 1, columns, false);
  for (const std::int64_t columns : {1024, 2048, 4096, 8192, 32768})
    attention(fmt::format("Attention decode {}, batch 16", columns), 16, 32, 8, 1, columns, false);
  // As in ResNet-50, batch 32; the weight is brought into the kernel's layout by each call, which an engine does once.
  const auto conv = [&](const char* name, DType dtype, std::int64_t in, std::int64_t out, std::int64_t side, std::int64_t window,
                        std::int64_t stride) {
    const std::int64_t result = side / stride;
    Work work{name,
              "Conv",
              {},
              dtype,
              {{32, in, side, side}, {out, in, window, window}},
              {{1, in, side, side}, {4, in, window, window}},
              2.0 * static_cast<double>(32 * result * result * out * in * window * window),
              1 / std::sqrt(std::sqrt(static_cast<double>(in * window * window)))};
    work.attributes = {{"strides", std::vector<std::int64_t>{stride, stride}}, {"pads", std::vector<Dim>(4, Dim(window / 2))}};
    list.push_back(work);
  };
  conv("Conv 7x7 of 3", DType::f16, 3, 64, 224, 7, 2);
  conv("Conv 3x3 of 64", DType::f16, 64, 64, 56, 3, 1);
  conv("Conv 1x1 of 64", DType::f16, 64, 256, 56, 1, 1);
  conv("Conv 3x3 of 512", DType::f16, 512, 512, 8, 3, 1);
  conv("Conv 3x3 of 64 f32", DType::f32, 64, 64, 56, 3, 1);
  // The same with the channels last, bias, residual and activation, as between two nodes of an engine.
  const auto conv_last = [&](const char* name, std::int64_t in, std::int64_t out, std::int64_t side, std::int64_t window,
                             std::int64_t stride) {
    const std::int64_t result = side / stride;
    Work work{name,
              "Conv",
              {},
              DType::f16,
              {{32, side, side, in}, {out, window, window, in}, {out}, {32, result, result, out}},
              {{1, side, side, in}, {4, window, window, in}, {4}, {1, result, result, 4}},
              2.0 * static_cast<double>(32 * result * result * out * in * window * window),
              1 / std::sqrt(std::sqrt(static_cast<double>(in * window * window)))};
    work.attributes = {{"strides", std::vector<std::int64_t>{stride, stride}},
                       {"pads", std::vector<Dim>(4, Dim(window / 2))},
                       {"layout", std::string("channels_last")},
                       {"activation", std::string("relu")}};
    list.push_back(work);
  };
  conv_last("Conv 7x7 of 8 last", 8, 64, 224, 7, 2);
  conv_last("Conv 3x3 of 64 last", 64, 64, 56, 3, 1);
  conv_last("Conv 1x1 of 64 last", 64, 256, 56, 1, 1);
  conv_last("Conv 3x3 of 512 last", 512, 512, 8, 3, 1);
  list.push_back({"MaxPool last",
                  "MaxPool",
                  {{"kernel", std::vector<std::int64_t>{3, 3}},
                   {"strides", std::vector<std::int64_t>{2, 2}},
                   {"pads", std::vector<Dim>(4, Dim(1))},
                   {"layout", std::string("channels_last")}},
                  DType::f16,
                  {{32, 112, 112, 64}},
                  {{1, 112, 112, 64}}});
  list.push_back(
      {"MaxPool",
       "MaxPool",
       {{"kernel", std::vector<std::int64_t>{3, 3}}, {"strides", std::vector<std::int64_t>{2, 2}}, {"pads", std::vector<Dim>(4, Dim(1))}},
       DType::f16,
       {{256, 64, 112, 112}},
       {{1, 4, 112, 112}}});
  list.push_back({"GroupNorm",
                  "GroupNorm",
                  {{"group_size", std::int64_t{10}}},
                  DType::f16,
                  {{32, 320, 64, 64}, {320}, {320}},
                  {{1, 20, 64, 64}, {20}, {20}}});
  list.push_back({"Resize nearest", "Resize", {{"sizes", std::vector<Dim>{128, 128}}}, DType::f16, {{16, 640, 64, 64}}, {{1, 4, 64, 64}}});
  for (const bool dependent : {true, false})  // hundreds of small kernels in one recording: the time between two of them
    list.push_back({.name = dependent ? "RmsNorm of 4 rows, early" : "RmsNorm of 4 rows, in turn",
                    .op = "RmsNorm",
                    .operands = {{4, kLength}, {kLength}},
                    .corner = {{4, kLength}, {kLength}},
                    .dependent = dependent});
  return list;
}

OpCall call_of(const Work& work, const std::vector<Shape>& shapes) {
  OpCall call;
  call.op = all_ops().find(work.op);
  check(call.op != nullptr, "the op exists");
  call.attributes = Attributes(&call.op->fields);
  for (const auto& [name, value] : work.attributes) call.attributes.set(name, value);
  for (std::size_t i = 0; i < shapes.size(); ++i)
    call.operands.push_back(shapes[i] == kAbsent ? std::nullopt : std::optional(Type{work.type_of(i), dims_of_shape(shapes[i])}));
  call.results = call.op->infer(call);
  return call;
}

std::size_t size_of(const Type& type) { return bytes(type.dtype, element_count(shape_of(type))); }

// The leading corner of a dense tensor.
Tensor corner_of(const Tensor& whole, const Shape& shape) {
  Tensor part(whole.dtype(), shape);
  const Shape strides = row_major_strides(whole.shape());
  for (std::int64_t i = 0; i < part.count(); ++i) {
    std::int64_t from = 0, rest = i;
    for (std::size_t d = shape.size(); d-- > 0;) {
      from += rest % shape[d] * strides[d];
      rest /= shape[d];
    }
    store_element(part.dtype(), part.mutable_data(), i, whole.at(from));
  }
  return part;
}

// Seconds of that many calls, which a recording holds so that starting them costs little.
double seconds_of(Device& device, Stream& stream, int calls, const std::function<void(int)>& call) {
  const auto recording = device.record(stream, [&] {
    for (int i = 0; i < calls; ++i) call(i);
  });
  recording->launch(stream);
  stream.wait(Deadline::after(std::chrono::seconds(60)));
  const std::int64_t begin = monotonic_ns();
  recording->launch(stream);
  stream.wait(Deadline::after(std::chrono::seconds(60)));
  return static_cast<double>(monotonic_ns() - begin) / 1e9;
}

// The device's own copy of as many bytes as the rows of norms and the like read and write, which those are judged beside: half a GB to
// another place, in several pairs of places.
constexpr const char* kCopy = "Copy of 1.07 GB";
Json measure_copy() {
  constexpr std::size_t kBytes = std::size_t{1} << 29, kPairs = 2;
  const auto device = open_device("cuda", 0);
  const auto stream = device->make_stream(4);
  const Tensor block = test::random_tensor(DType::bf16, {1 << 20}, 1);
  std::vector<DeviceMemory> from, to;
  for (std::size_t pair = 0; pair < kPairs; ++pair) {
    from.emplace_back(device, kBytes);
    to.emplace_back(device, kBytes);
    for (std::size_t at = 0; at < kBytes; at += block.size_bytes())
      device->copy(from.back().data() + at, block.data(), block.size_bytes(), *stream);
  }
  const auto call = [&](int i) {
    const std::size_t pair = static_cast<std::size_t>(i) % kPairs;
    device->copy(to[pair].data(), from[pair].data(), kBytes, *stream);
  };
  const double once = seconds_of(*device, *stream, kPairs, call) / kPairs;
  const int calls = std::clamp(static_cast<int>(0.02 / once), 3, 500);
  const double seconds = seconds_of(*device, *stream, calls, call) / calls;
  std::vector<std::byte> last(block.size_bytes());
  device->copy(last.data(), to[0].data() + kBytes - last.size(), last.size(), *stream);
  stream->wait(Deadline::after(std::chrono::seconds(60)));
  const bool same = std::ranges::equal(last, std::span(block.data(), last.size()));
  return {{"name", kCopy}, {"us", seconds * 1e6}, {"gb_s", 2 * kBytes / seconds / 1e9}, {"error", same ? 0 : 1}};
}

// One row on the device: operands in several copies, each repeated from one random block.
class Row {
 public:
  explicit Row(const Work& work)
      : work_(work), call_(call_of(work, work.operands)), device_(open_device("cuda", 0)), stream_(device_->make_stream(4)) {
    for (const KernelDef* kernel : kernels_of(work.op, "cuda")) {
      if (kernel->through_host || refusal(*kernel, call_)) continue;
      kernel_ = kernel;
      break;
    }
    if (!kernel_) fail(ErrorCode::unsupported, "no kernel of GPUs runs it");
    for (const auto& operand : call_.operands) bytes_ += operand ? static_cast<double>(size_of(*operand)) : 0;
    for (const Type& result : call_.results) bytes_ += static_cast<double>(size_of(result));
    sets_ = static_cast<std::size_t>(std::clamp(std::ceil(1e9 / bytes_), 2.0, 64.0));  // many times what caches hold
    if (kernel_->algorithms) {                                                         // as a build chooses among them
      std::vector<bool> weights(call_.operands.size(), false);
      for (const std::size_t i : work_.weights) weights[i] = true;
      algorithm_ = make_measure("cuda", 4)({*kernel_, call_, weights, 1, work_.tf32}).algorithm;
    }
    for (std::size_t set = 0; set < sets_; ++set) {
      for (std::size_t i = 0; i < call_.operands.size(); ++i)
        operands_.push_back(call_.operands[i] ? random(*call_.operands[i], set, i) : nullptr);
      for (const Type& result : call_.results) results_.push_back(room(size_of(result)));
    }
    stream_->wait(Deadline::after(std::chrono::seconds(60)));
    for (std::size_t set = 0; set < sets_; ++set) prepare(set);
    workspace_ = room(prepared_[0]->workspace_bytes());
  }

  Json measure(bool compared) {
    run(static_cast<int>(sets_));
    const double once = run(1);
    const int calls = std::clamp(static_cast<int>(0.02 / once), 3, 500);
    const double seconds = run(calls) / calls;
    Json out{{"name", work_.name}, {"kernel", kernel_->name}, {"us", seconds * 1e6}, {"gb_s", bytes_ / seconds / 1e9}};
    if (!algorithm_.empty()) out["algorithm"] = algorithm_;
    if (work_.flops > 0) out["tflop_s"] = work_.flops / seconds / 1e12;
    if (compared) out["error"] = error();
    return out;
  }

 private:
  // As an engine would, whose weights stay where they are.
  void prepare(std::size_t set) {
    const OnDevice current(*device_);
    std::vector<const std::byte*> weights(call_.operands.size(), nullptr);
    for (const std::size_t i : work_.weights) weights[i] = operands_[set * call_.operands.size() + i];
    packed_.push_back(kernel_->pack ? kernel_->pack(call_, weights) : nullptr);
    prepared_.push_back(kernel_->prepare({.call = call_,
                                          .weights = weights,
                                          .packed = packed_.back().get(),
                                          .threads = 4,
                                          .device = device_.get(),
                                          .algorithm = algorithm_,
                                          .tf32 = work_.tf32}));
  }

  std::byte* room(std::size_t size) {
    memory_.emplace_back(device_, std::max<std::size_t>(size, 1));
    return memory_.back().data();
  }

  // From one random block of each kind, which every set begins somewhere else. Of integers over most of their range.
  const std::byte* random(const Type& type, std::size_t set, std::size_t operand) {
    const std::size_t size = size_of(type);
    std::byte* to = room(size);
    const double scale = is_integer(type.dtype) ? std::ldexp(1.0, bits(type.dtype) - 2) : work_.scale;
    static std::map<std::tuple<DType, double, std::size_t>, Tensor> blocks;
    Tensor& block = blocks[{type.dtype, scale, operand}];
    if (block.count() <= 1) block = test::random_tensor(type.dtype, {1 << 20}, static_cast<unsigned>(operand), scale);
    std::size_t from = set * 4096 % block.size_bytes();
    for (std::size_t at = 0, part = 0; at < size; at += part, from = 0) {
      part = std::min(block.size_bytes() - from, size - at);
      device_->copy(to + at, block.data() + from, part, *stream_);
    }
    return to;
  }

  // `follows`: another call of this row was given to the stream just before.
  void call(std::size_t set, bool follows) {
    std::vector<bool> weights(call_.operands.size(), false);
    for (const std::size_t i : work_.weights) weights[i] = true;
    const bool early = follows && work_.dependent && kernel_->dependent && can_start_early(*device_);
    const std::uint64_t resident = early ? resident_operands(*kernel_, call_, weights) : 0;
    const std::size_t in = call_.operands.size(), out = call_.results.size();
    prepared_[set]->run({std::span(operands_).subspan(set * in, in), std::span(results_).subspan(set * out, out), workspace_, *stream_,
                         Deadline::after(std::chrono::seconds(60)), early, resident});
  }

  double run(int calls) {
    return seconds_of(*device_, *stream_, calls, [&](int i) { call(static_cast<std::size_t>(i) % sets_, i > 0); });
  }

  Tensor fetch(const std::byte* from, const Type& type) {
    Tensor tensor(type.dtype, shape_of(type));
    device_->copy(tensor.mutable_data(), from, tensor.size_bytes(), *stream_);
    stream_->wait(Deadline::after(std::chrono::seconds(60)));
    return tensor;
  }

  // The largest difference from the evaluator in the corner, over the largest magnitude.
  double error() {
    const OpCall small = call_of(work_, work_.corner);
    std::vector<Tensor> operands;
    for (std::size_t i = 0; i < work_.corner.size(); ++i)
      operands.push_back(call_.operands[i] ? corner_of(fetch(operands_[i], *call_.operands[i]), work_.corner[i]) : Tensor());
    const Tensor expected = small.op->evaluate(small, operands)[0];
    const Tensor actual = corner_of(fetch(results_[0], call_.results[0]), expected.shape());
    double largest = 1e-6, worst = 0;
    for (std::int64_t i = 0; i < expected.count(); ++i) {
      largest = std::max(largest, std::fabs(expected.at(i)));
      const double difference = std::fabs(expected.at(i) - actual.at(i));
      if (!(difference <= worst)) worst = difference;  // NaN stays
      if (std::isnan(worst)) return std::numeric_limits<double>::max();
    }
    return worst / largest;
  }

  const Work& work_;
  OpCall call_;
  std::shared_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  const KernelDef* kernel_ = nullptr;
  std::string algorithm_;
  double bytes_ = 0;
  std::size_t sets_ = 1;
  std::vector<DeviceMemory> memory_;
  std::vector<const std::byte*> operands_;
  std::vector<std::byte*> results_;
  std::byte* workspace_ = nullptr;
  std::vector<std::unique_ptr<Packed>> packed_;  // by set, as prepared_
  std::vector<std::unique_ptr<PreparedKernel>> prepared_;
};

}  // namespace

int main(int argc, char**) {
  const std::vector<Work> list = all_work();
  if (argc > 1) {
    fmt::print("{}\n", kCopy);
    for (const Work& work : list) fmt::print("{}\n", work.name);
    return 0;
  }
  std::set<std::string> seen;
  for (std::string name; std::getline(std::cin, name);) {
    const auto work = std::ranges::find(list, name, &Work::name);
    Json answer = {{"name", name}};
    try {
      if (work == list.end() && name != kCopy) fail(ErrorCode::invalid_argument, "there is no row '{}'", name);
      answer = name == kCopy ? measure_copy() : Row(*work).measure(seen.insert(name).second);
    } catch (const Error& error) {
      answer["failed"] = error.what();
    }
    fmt::print("{}\n", answer.dump());
    std::fflush(stdout);
  }
}
