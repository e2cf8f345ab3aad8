// Whole engines on a GPU: what starting a run costs the host, what memory is taken beyond what is planned, how long a large engine takes to
// its first output. One JSON line per row, for tools/gpu_check.py.
//
//   gpu_engine enqueue               host time of Context::enqueue for a graph of 200 kernels: started one by one, and replayed; time of
//                                    replays of 2, 20 and 200 kernels that follow each other
//   gpu_engine memory                memory of the GPU after ten steps, against a bare CUDA context
//   gpu_engine stream [GB]           a call of a stack of products whose weights are resident, or in parts come from the host in each run
//   gpu_engine products              a server: reads names from stdin ("MatMul 2048x14336x4096 bf16 through an engine"), a line each, and
//                                    answers each with a line: the time of a product in an engine of many
//   gpu_engine write FILE [GB]       an engine of bf16 products with random weights, and FILE.expected: one row of its result by plain
//                                    loops
//   gpu_engine start FILE            its first output; whoever starts this process takes the time
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <thread>

#include "core/check.h"
#include "peers/steady.h"
#include "tandem/gpu.h"
#include "tandem/tandem.h"

namespace {

using namespace tandem;
using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kSize = 8192, kRows = 8;

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float from_bf16(std::uint16_t value) { return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16); }

// Normal values of the given deviation, as bf16.
std::shared_ptr<std::uint16_t> random_bf16(std::size_t count, unsigned seed, float deviation) {
  std::shared_ptr<std::uint16_t> values(new std::uint16_t[count], std::default_delete<std::uint16_t[]>());
  const std::size_t workers = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::jthread> threads;
  for (std::size_t t = 0; t < workers; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + static_cast<unsigned>(t));
      std::normal_distribution<float> normal(0, deviation);
      for (std::size_t i = count * t / workers; i < count * (t + 1) / workers; ++i) values.get()[i] = to_bf16(normal(random));
    });
  return values;
}

Array array_at(const std::shared_ptr<std::uint16_t>& memory, std::size_t offset, Shape shape) {
  return {DType::bf16, std::move(shape), {memory, reinterpret_cast<const std::byte*>(memory.get() + offset)}};
}

Array random_array(Shape shape, unsigned seed, float deviation) {
  return array_at(random_bf16(static_cast<std::size_t>(element_count(shape)), seed, deviation), 0, shape);
}

Engine built(const Network& network, bool timed = false) {
  BuildOptions options;
  options.device = "cuda";
  options.timed = timed;
  return build(network, options);
}

// Kernels that depend on each other and are not fused: products and softmaxes in turn.
Engine chain(unsigned kernels) {
  Network network;
  auto x = network.input("x", DType::bf16, {64, 64});
  for (unsigned i = 0; i < kernels / 2; ++i)
    x = network.add("Softmax", {network.add("MatMul", {x, network.weight(fmt::format("w{}", i), random_array({64, 64}, i, 1.0f))})});
  network.output("y", x);
  return built(network);
}

// Blocks of a transformer, so that every library that engines use is in it.
Engine transformer(int layers) {
  constexpr std::int64_t kTokens = 1024, kWidth = 1024, kHeads = 16;
  Network network;
  unsigned seed = 0;
  const auto weight = [&](Shape shape) {
    ++seed;
    return network.weight(fmt::format("w{}", seed), random_array(shape, seed, 0.03f));
  };
  const auto heads = [&](const Network::Value& of) {
    const auto cut = network.add("Reshape", {network.add("MatMul", {of, weight({kWidth, kWidth})})},
                                 {{"shape", Extents{1, kTokens, kHeads, kWidth / kHeads}}});
    return network.add("Transpose", {cut}, {{"permutation", std::vector<std::int64_t>{0, 2, 1, 3}}});
  };
  auto x = network.input("x", DType::bf16, {1, kTokens, kWidth});
  for (int layer = 0; layer < layers; ++layer) {
    const auto normed = network.add("RmsNorm", {x, weight({kWidth})});
    const auto mixed = network.attention(heads(normed), heads(normed), heads(normed));
    const auto joined =
        network.add("Reshape", {network.add("Transpose", {mixed}, {{"permutation", std::vector<std::int64_t>{0, 2, 1, 3}}})},
                    {{"shape", Extents{1, kTokens, kWidth}}});
    x = x + network.add("MatMul", {joined, weight({kWidth, kWidth})});
    const auto up = network.add("MatMul", {network.add("RmsNorm", {x, weight({kWidth})}), weight({kWidth, 4 * kWidth})});
    x = x + network.add("MatMul", {network.add("Sigmoid", {up}) * up, weight({4 * kWidth, kWidth})});
  }
  network.output("y", x);
  return built(network);
}

Json quantiles(std::vector<double> us) {
  std::ranges::sort(us);
  return {{"p50_us", us[us.size() / 2]}, {"p99_us", us[us.size() * 99 / 100]}, {"calls", us.size()}};
}

void print(const Json& row) {
  fmt::print("{}\n", row.dump());
  std::fflush(stdout);
}

// More outputs in turn than a context keeps recordings of: no call finds one.
void measure_enqueue() {
  constexpr int kCalls = 1000;
  const Engine engine = chain(200);
  Context context(engine);
  context.prepare();
  const Gpu gpu(context.gpu());
  const std::size_t bytes = 64 * 64 * 2;
  const auto in = gpu.allocate(bytes);
  const Array values = random_array({64, 64}, 7, 1);
  gpu.copy(in.get(), values.data.get(), bytes);
  gpu.synchronize();
  std::vector<std::shared_ptr<std::byte>> outs;
  for (int i = 0; i < 16; ++i) outs.push_back(gpu.allocate(bytes));
  const auto steps = Json::parse(engine.describe())["steps"].size();
  for (const std::size_t used : {outs.size(), std::size_t{1}}) {
    std::vector<double> us;
    for (int call = 0; call < kCalls + 32; ++call) {
      const void* const inputs[] = {in.get()};
      void* const outputs[] = {outs[static_cast<std::size_t>(call) % used].get()};
      const auto begin = Clock::now();
      context.enqueue(inputs, outputs);
      if (call >= 32) us.push_back(since(begin) * 1e6);
      context.synchronize();
    }
    Json row = quantiles(us);
    row.update({{"name", used > 1 ? "enqueue of 200 kernels, one by one" : "enqueue of 200 kernels, replayed"}, {"kernels", steps}});
    print(row);
  }
}

// The GPU's time of a call among many that follow each other at once; what a call costs beside its kernels shows in short ones.
void measure_replay(unsigned kernels) {
  constexpr int kCalls = 500;
  const Engine engine = chain(kernels);
  Context context(engine);
  const Gpu gpu(context.gpu());
  const auto in = gpu.allocate(64 * 64 * 2), out = gpu.allocate(64 * 64 * 2);
  const Array values = random_array({64, 64}, 7, 1);
  gpu.copy(in.get(), values.data.get(), 64 * 64 * 2);
  gpu.synchronize();
  const void* const inputs[] = {in.get()};
  void* const outputs[] = {out.get()};
  double seconds = 0;
  for (int round = 0; round < 2; ++round) {  // the first one prepares and records
    const auto begin = Clock::now();
    for (int call = 0; call < kCalls; ++call) context.enqueue(inputs, outputs);
    context.synchronize();
    seconds = since(begin);
  }
  print({{"name", fmt::format("calls of {} kernels, one after another", kernels)}, {"us", seconds / kCalls * 1e6}});
}

std::size_t free_bytes() {
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total) == cudaSuccess, "the GPU says how much memory is free");
  return free;
}

void measure_memory() {
  if (cudaFree(nullptr) != cudaSuccess) fail(ErrorCode::unsupported, "there is no GPU");
  const std::size_t bare = free_bytes();
  const Engine engine = transformer(12);
  Context context(engine);
  const Array x = random_array({1, 1024, 1024}, 99, 1);
  std::vector<std::byte> y(x.size_bytes());
  const void* const inputs[] = {x.data.get()};
  void* const outputs[] = {y.data()};
  for (int step = 0; step < 10; ++step) context.run(inputs, outputs);
  const std::size_t taken = bare - free_bytes();
  const Json rank = Json::parse(engine.describe())["ranks"][0];
  const auto weights = rank["weight_bytes"].get<std::size_t>(), activations = engine.activation_bytes();
  const std::size_t given = 2 * x.size_bytes();  // where a run on arrays of the host stages them
  const double beyond = (static_cast<double>(taken) - static_cast<double>(weights + activations + given)) / 1e6;
  print({{"name", "memory beyond weights, arena and workspace"},
         {"mb", beyond},
         {"taken_mb", static_cast<double>(taken) / 1e6},
         {"weights_mb", static_cast<double>(weights) / 1e6},
         {"arena_and_workspace_mb", static_cast<double>(activations) / 1e6}});
}

// x·w for one row by plain loops, rounded to bf16 as each product of the engine is.
std::vector<std::uint16_t> product(const std::vector<std::uint16_t>& x, const std::uint16_t* w) {
  std::vector<std::uint16_t> out(kSize);
  const std::int64_t workers = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::jthread> threads;
  for (std::int64_t t = 0; t < workers; ++t)
    threads.emplace_back([&, t] {
      const std::int64_t first = kSize * t / workers, last = kSize * (t + 1) / workers;
      std::vector<float> sums(static_cast<std::size_t>(last - first));
      for (std::int64_t k = 0; k < kSize; ++k) {
        const float factor = from_bf16(x[static_cast<std::size_t>(k)]);
        for (std::int64_t n = first; n < last; ++n) sums[static_cast<std::size_t>(n - first)] += factor * from_bf16(w[k * kSize + n]);
      }
      for (std::int64_t n = first; n < last; ++n) out[static_cast<std::size_t>(n)] = to_bf16(sums[static_cast<std::size_t>(n - first)]);
    });
  threads.clear();
  return out;
}

Array input_of_stack() { return random_array({kRows, kSize}, 5, 1); }

// Products one after another. Each weight begins elsewhere in one block of random values, so that no two are equal and few have to be made.
struct Stack {
  static constexpr std::size_t kElements = static_cast<std::size_t>(kSize) * kSize, kShift = 4096;
  explicit Stack(double gigabytes)
      : layers(std::max(1, static_cast<int>(std::lround(gigabytes * 1e9 / (2.0 * kElements))))),
        block(random_bf16(kElements + static_cast<std::size_t>(layers) * kShift, 3, 1 / std::sqrt(static_cast<float>(kSize)))) {}
  std::size_t offset(int layer) const { return static_cast<std::size_t>(layer) * kShift; }
  std::size_t weight_bytes() const { return 2 * kElements * static_cast<std::size_t>(layers); }
  Engine engine() const {
    Network network;
    auto x = network.input("x", DType::bf16, {kRows, kSize});
    for (int i = 0; i < layers; ++i)
      x = network.add("MatMul", {x, network.weight(fmt::format("w{}", i), array_at(block, offset(i), {kSize, kSize}))});
    network.output("y", x);
    return built(network);
  }
  const int layers;
  const std::shared_ptr<std::uint16_t> block;
};

void write_stack(const std::string& path, double gigabytes) {
  const auto begin = Clock::now();
  const Stack stack(gigabytes);
  const Array given = input_of_stack();
  const auto* first = reinterpret_cast<const std::uint16_t*>(given.data.get());
  std::vector<std::uint16_t> row(first, first + kSize);
  for (int i = 0; i < stack.layers; ++i) row = product(row, stack.block.get() + stack.offset(i));
  stack.engine().save(path);
  std::ofstream(path + ".expected", std::ios::binary)
      .write(reinterpret_cast<const char*>(row.data()), static_cast<std::streamsize>(row.size() * 2));
  print(
      {{"name", "write"}, {"products", stack.layers}, {"gb", static_cast<double>(stack.weight_bytes()) / 1e9}, {"seconds", since(begin)}});
}

// The median time of a call, with this much memory for weights (none: for all); the outputs must not differ from `expected`, which the
// first call fills.
void measure_streamed(const Engine& engine, const std::string& name, std::optional<std::size_t> budget, double came_bytes,
                      std::vector<std::uint16_t>& expected) {
  constexpr int kCalls = 9;
  Context context(engine, {.weight_budget_bytes = budget});
  const Gpu gpu(context.gpu());
  const Array x = input_of_stack();
  std::vector<std::uint16_t> y(kRows * kSize);
  const auto in = gpu.allocate(x.size_bytes()), out = gpu.allocate(x.size_bytes());
  gpu.copy(in.get(), x.data.get(), x.size_bytes());
  gpu.synchronize();
  const void* const inputs[] = {in.get()};
  void* const outputs[] = {out.get()};
  std::vector<double> us;
  for (int call = 0; call < kCalls + 2; ++call) {  // the first ones prepare and record
    const auto begin = Clock::now();
    context.enqueue(inputs, outputs);
    context.synchronize();
    if (call >= 2) us.push_back(since(begin) * 1e6);
  }
  gpu.copy(y.data(), out.get(), x.size_bytes());
  gpu.synchronize();
  if (expected.empty()) expected = y;
  if (y != expected) fail(ErrorCode::internal, "{}: the output is another than with all weights resident", name);
  std::ranges::sort(us);
  const double median = us[us.size() / 2];
  print({{"name", name}, {"us", median}, {"came_gb", came_bytes / 1e9}, {"host_gb_s", came_bytes / median / 1e3}});
}

void measure_streaming(double gigabytes) {
  const Stack stack(gigabytes);
  const Engine engine = stack.engine();
  std::vector<std::uint16_t> expected;
  measure_streamed(engine, "weights resident", std::nullopt, 0, expected);
  for (const int eighths : {6, 4, 2}) {
    const std::size_t budget = stack.weight_bytes() * static_cast<std::size_t>(eighths) / 8;
    const auto memory = engine.weight_memory(budget);
    measure_streamed(engine, fmt::format("weights in {}/8 of their memory", eighths), budget, static_cast<double>(memory.streamed_bytes),
                     expected);
  }
}

// As many products of one shape as caches do not hold, each with its own operand, weight and result, in an engine whose kernels were chosen
// by time. Values are distributed as gpu_bench's are.
class Products {
 public:
  explicit Products(const std::string& name) {
    if (std::sscanf(name.c_str(), "MatMul %ldx%ldx%ld bf16", &m_, &k_, &n_) == 1) k_ = n_ = m_;
    if (m_ < 1 || k_ < 1 || n_ < 1 || !name.ends_with(" bf16 through an engine"))
      fail(ErrorCode::invalid_argument, "'{}' is no product through an engine, as \"MatMul 16x4096x4096 bf16 through an engine\"", name);
    const double bytes = 2.0 * static_cast<double>(m_ * k_ + k_ * n_ + m_ * n_);
    const auto count = static_cast<std::size_t>(std::clamp(std::ceil(2e9 / bytes), 2.0, 64.0));
    const float deviation = 1 / std::sqrt(std::sqrt(static_cast<float>(k_)));
    x_ = random_bf16(static_cast<std::size_t>(m_ * k_) + count * kShift, 1, deviation);
    w_ = random_bf16(static_cast<std::size_t>(k_ * n_) + count * kShift, 1001, deviation);
    Network network;
    for (std::size_t i = 0; i < count; ++i) {
      const auto x = network.input(fmt::format("x{}", i), DType::bf16, {m_, k_});
      network.output(fmt::format("y{}", i),
                     network.add("MatMul", {x, network.weight(fmt::format("w{}", i), array_at(w_, i * kShift, {k_, n_}))}));
    }
    const Engine engine = built(network, true);
    const Json step = Json::parse(engine.describe())["steps"][0];
    told_ = {{"kernel", step["kernel"]}, {"algorithm", step.value("algorithm", "")}, {"products", count}};
    context_.emplace(engine);
    gpu_.emplace(context_->gpu());
    const std::size_t in = 2 * static_cast<std::size_t>(m_ * k_), out = 2 * static_cast<std::size_t>(m_ * n_);
    for (std::size_t i = 0; i < count; ++i) {
      memory_.push_back(gpu_->allocate(in));
      gpu_->copy(memory_.back().get(), x_.get() + i * kShift, in);
      inputs_.push_back(memory_.back().get());
      memory_.push_back(gpu_->allocate(out));
      outputs_.push_back(memory_.back().get());
    }
    gpu_->synchronize();
    for (int call = 0; call < 3; ++call) run(1);  // prepares, records, replays
  }

  Json measure() {
    const double once = run(1);
    const auto calls_in = [&](double seconds) { return static_cast<int>(std::ceil(seconds / once)); };
    run(calls_in(bench::kWarmSeconds));
    const int calls = calls_in(bench::kTimedSeconds);
    Json answer = told_;
    answer["us"] = run(calls) / calls / static_cast<double>(inputs_.size()) * 1e6;
    return answer;
  }

  // Of a corner of the last product's result from plain loops, over the largest magnitude there.
  double error() const {
    const std::int64_t rows = std::min<std::int64_t>(m_, 4), columns = std::min<std::int64_t>(n_, 16);
    const std::size_t last = inputs_.size() - 1;
    std::vector<std::uint16_t> y(static_cast<std::size_t>(m_ * n_));
    gpu_->copy(y.data(), outputs_[last], 2 * y.size());
    gpu_->synchronize();
    const std::uint16_t *x = x_.get() + last * kShift, *w = w_.get() + last * kShift;
    double largest = 1e-6, worst = 0;
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j) {
        double expected = 0;
        for (std::int64_t k = 0; k < k_; ++k) expected += static_cast<double>(from_bf16(x[i * k_ + k])) * from_bf16(w[k * n_ + j]);
        const double difference = std::fabs(from_bf16(y[static_cast<std::size_t>(i * n_ + j)]) - expected);
        if (std::isnan(difference)) return 1e30;
        largest = std::max(largest, std::fabs(expected));
        worst = std::max(worst, difference);
      }
    return worst / largest;
  }

 private:
  static constexpr std::size_t kShift = 4096;  // where the next product's values begin in the block of random ones

  // Seconds of that many calls.
  double run(int calls) {
    const auto begin = Clock::now();
    for (int call = 0; call < calls; ++call) context_->enqueue(inputs_, outputs_);
    context_->synchronize();
    return since(begin);
  }

  std::int64_t m_ = 0, k_ = 0, n_ = 0;
  std::shared_ptr<std::uint16_t> x_, w_;
  std::optional<Context> context_;
  std::optional<Gpu> gpu_;
  std::vector<std::shared_ptr<std::byte>> memory_;
  std::vector<const void*> inputs_;
  std::vector<void*> outputs_;
  Json told_;
};

// An engine stays until another name is asked for: its memory is given back before the next one is built.
void serve_products() {
  std::optional<Products> products;
  std::string held;
  for (std::string name; std::getline(std::cin, name);) {
    Json answer = {{"name", name}};
    try {
      const bool is_new = name != held;
      if (is_new) {
        held.clear();
        products.reset();
        products.emplace(name);
        held = name;
      }
      answer.update(products->measure());
      if (is_new) answer["error"] = products->error();
    } catch (const Error& error) {
      answer["failed"] = error.what();
    }
    print(answer);
  }
}

// The difference from the plain loops, over the length of their row.
double error_of(const std::vector<std::uint16_t>& y, const std::string& path) {
  std::vector<std::uint16_t> expected(kSize);
  std::ifstream file(path + ".expected", std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(expected.data()), kSize * 2)) fail(ErrorCode::io, "cannot read {}.expected", path);
  double difference = 0, length = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double e = from_bf16(expected[i]), d = from_bf16(y[i]) - e;
    difference += d * d;
    length += e * e;
  }
  const double error = std::sqrt(difference / length);
  return std::isnan(error) ? 1e30 : error;
}

void first_output(const std::string& path) {
  const auto begin = Clock::now();
  Json phases;
  const auto mark = [&](const char* name) { phases[name] = std::round(since(begin) * 1e3) / 1e3; };
  const Engine engine = load_engine(path);
  mark("opened");
  Context context(engine);
  mark("weights_on_gpu");
  const Array x = input_of_stack();
  std::vector<std::uint16_t> y(kRows * kSize);
  const void* const inputs[] = {x.data.get()};
  void* const outputs[] = {y.data()};
  context.run(inputs, outputs);
  mark("first_output");
  print({{"name", "first output"}, {"phases_s", phases}, {"error", error_of(y, path)}});
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  try {
    if (words == std::vector<std::string>{"enqueue"}) {
      measure_enqueue();
      for (const unsigned kernels : {2, 20, 200}) measure_replay(kernels);
    } else if (words == std::vector<std::string>{"memory"}) measure_memory();
    else if (words == std::vector<std::string>{"products"}) serve_products();
    else if (!words.empty() && words.size() <= 2 && words[0] == "stream") measure_streaming(words.size() > 1 ? std::stod(words[1]) : 4);
    else if (words.size() >= 2 && words[0] == "write") write_stack(words[1], words.size() > 2 ? std::stod(words[2]) : 15);
    else if (words.size() == 2 && words[0] == "start") first_output(words[1]);
    else fail(ErrorCode::invalid_argument, "gpu_engine enqueue | memory | stream [GB] | products | write FILE [GB] | start FILE");
  } catch (const Error& error) {
    print({{"failed", error.what()}});
    return 1;
  }
}
