// Several GPUs, a process each: time of one call on the slowest rank. A server for tools/gpu_check.py, which asks for rows here and at a
// peer in turn.
//
//   gpu_ranks_bench --list            the names of the rows that peers have too
//   gpu_ranks_bench --forms           the names of further rows: attention by each of its kernels, and with half the heads
//   gpu_ranks_bench RANKS             reads names from stdin, a line each; answers each with a line of JSON
//
// Calls are engines that are enqueued on each rank's own stream, replayed from its recording. The first time that a row is asked for, some
// of its results are compared with loops in double.
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/check.h"
#include "core/half.h"
#include "core/seconds.h"
#include "device/device.h"
#include "tandem/tandem.h"

namespace {

using namespace tandem;
using Json = nlohmann::json;

constexpr std::int64_t kHeads = 24, kSize = 128, kWidth = 4096;  // kHeads: of q, where a row does not say otherwise
constexpr int kChained = 200;  // small collectives in one recording: as of a whole model, so that starting it does not show
// Of the largest difference, relative to the largest magnitude: what bf16 allows of attention; of a chain, whose sums are rounded here and
// there, and where a rank that adds its own words for another's in every call is off by 0.1 or more.
constexpr double kAttentionLimit = 0.016, kChainLimit = 0.03;

struct Work {
  std::string name;
  bool attention = false, causal = false;
  std::int64_t length = 0;  // of the sequence; or rows of the reduction
  bool apart = false;       // the reduction and the norm as kernels of their own
  std::string form = {};    // of attention, as its kernels' names end; empty: the build's choice
  std::int64_t kv_heads = kHeads, heads = kHeads;
};

std::vector<Work> all_work() {
  std::vector<Work> list;
  for (const std::int64_t k : {8, 32, 128})
    for (const bool causal : {false, true})
      list.push_back({fmt::format("Attention over ranks {}K{}", k, causal ? " causal" : ""), true, causal, k * 1024});
  for (const std::int64_t k : {8, 32})
    for (const std::int64_t kv_heads : {kHeads, kHeads / 3})
      for (const bool causal : {false, true})
        for (const char* form : {"all_to_all", "all_gather", "all_gather_groups", "ring"})
          list.push_back({fmt::format("Attention over ranks by {} {}K, {} kv heads{}", form, k, kv_heads, causal ? " causal" : ""), true,
                          causal, k * 1024, false, form, kv_heads});
  // Half the heads: two GPUs have as much each as four have of all.
  for (const bool causal : {false, true})
    list.push_back({fmt::format("Attention over ranks 8K, half the heads{}", causal ? " causal" : ""), true, causal, 8192, false,
                    "all_to_all", kHeads / 2, kHeads / 2});
  for (const std::int64_t kb : {8, 64, 512, 4096, 16384})
    for (const bool apart : {false, true})
      list.push_back({fmt::format("AllReduce + residual + RmsNorm{} {} KB", apart ? " apart" : "", kb), false, false,
                      kb * 1024 / (2 * kWidth), apart});
  list.push_back({"A million tokens over ranks, once", true, false, 1 << 20});  // seconds on four GPUs; no peer is asked
  return list;
}

// Numbers that every rank can tell by their place.
class Numbers {
 public:
  explicit Numbers(unsigned seed) {
    std::uint32_t state = seed * 2654435761U + 1;
    for (auto& value : values_) {
      state = state * 1664525U + 1013904223U;
      value = float_to_bf16((static_cast<float>(state >> 8) / static_cast<float>(1 << 24) - 0.5f) * 2);
    }
  }
  std::uint16_t bits(std::int64_t at) const { return values_[static_cast<std::size_t>(at) % values_.size()]; }
  double at(std::int64_t i) const { return bf16_to_float(bits(i)); }
  void divide_by(int divisor) {
    for (auto& value : values_) value = float_to_bf16(bf16_to_float(value) / static_cast<float>(divisor));
  }

 private:
  std::vector<std::uint16_t> values_ = std::vector<std::uint16_t>((1 << 20) - 3);
};

Network network_of(const Work& work, int ranks) {
  Network network(fmt::format("cp={}", ranks));
  if (work.attention) {
    const std::int64_t local = work.length / ranks;
    const bool alike = work.kv_heads == work.heads;
    const Shape heads = alike ? Shape{3, work.heads} : Shape{work.heads + 2 * work.kv_heads};
    Shape shape = {1, work.length};
    shape.insert(shape.end(), heads.begin(), heads.end());
    shape.push_back(kSize);
    const Network::Value qkv = network.input("qkv", DType::bf16, Extents(shape.begin(), shape.end()), "1:cp");
    std::vector<Network::Value> operands;
    for (std::int64_t i = 0, begin = 0; i < 3; ++i) {
      const std::int64_t count = alike ? 1 : i == 0 ? work.heads : work.kv_heads;
      Network::Value part = network.add(
          "Slice", {qkv}, {{"axes", std::vector<std::int64_t>{2}}, {"starts", Extents{begin}}, {"ends", Extents{begin + count}}});
      begin += count;
      if (alike) part = network.add("Reshape", {part}, {{"shape", Extents{1, local, work.heads, kSize}}});
      operands.push_back(network.add("Transpose", {part}, {{"permutation", std::vector<std::int64_t>{0, 2, 1, 3}}}));
    }
    AttentionOptions options{.causal = work.causal ? "upper_left" : "none", .axis = "cp"};
    const Network::Value out = network.attention(operands[0], operands[1], operands[2], options);
    network.output("out", network.add("Transpose", {out}, {{"permutation", std::vector<std::int64_t>{0, 2, 1, 3}}}), "1:cp");
    return network;
  }
  Network::Value x = network.input("x", DType::bf16, {work.length, kWidth}),
                 residual = network.input("residual", DType::bf16, {work.length, kWidth}, "same");
  const Network::Value scale = network.input("scale", DType::bf16, {kWidth});  // each rank's own, so that each sum is of different values
  for (int i = 0; i < kChained; ++i) {
    x = network.dist_collective(x, "all_reduce", {.reduce = "sum", .axis = "cp"});
    const std::vector<Network::Value> both = network.add_all("AddRmsNorm", {x, residual, scale});
    x = both[0];
  }
  network.output("out", x);
  return network;
}

class Row {
 public:
  Row(const Work& work, Group& world)
      : work_(work), world_(world), device_(open_device("cuda", world.rank())), on_device_(*device_), engine_(engine_of(work, world)) {
    numbers_[2].divide_by(2 * world.size());  // so that a rounding fades in the chain, where it would grow
    context_.emplace(engine_, ContextOptions{.rank = world.rank()});
    context_->set_communicator(std::shared_ptr<Group>(&world, [](Group*) {}));
    const std::vector<Port> inputs = engine_.inputs(), outputs = engine_.outputs();
    const std::unique_ptr<Stream> stream = device_->make_stream(1);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Shape shape = inputs[i].local_range.at(1);
      std::vector<std::uint16_t> values(static_cast<std::size_t>(element_count(shape)));
      const std::int64_t first = inputs[i].name == "residual" ? 0 : world.rank() * static_cast<std::int64_t>(values.size());
      for (std::size_t e = 0; e < values.size(); ++e) values[e] = numbers_[i].bits(first + static_cast<std::int64_t>(e));
      memory_.emplace_back(device_, values.size() * 2);
      device_->copy(memory_.back().data(), reinterpret_cast<const std::byte*>(values.data()), values.size() * 2, *stream);
      ins_.push_back(memory_.back().data());
    }
    out_shape_ = outputs.at(0).local_range.at(1);
    memory_.emplace_back(device_, static_cast<std::size_t>(element_count(out_shape_)) * 2);
    outs_.push_back(memory_.back().data());
    stream->wait(Deadline::after(std::chrono::seconds(60)));
    context_->prepare();
  }

  // Seconds of one call, of all ranks together.
  double measure() {
    const double first = slowest(call(1));
    if (first > 1) return first;
    for (int i = 0; i < 2; ++i) call(1);
    const double once = slowest(call(1));
    return slowest(call(std::clamp(static_cast<int>(0.05 / once), 5, 200)));
  }

  // The largest difference from loops in double over a few rows, over the largest magnitude.
  double error() {
    call(1);
    std::vector<std::uint16_t> got(static_cast<std::size_t>(element_count(out_shape_)));
    const std::unique_ptr<Stream> stream = device_->make_stream(1);
    device_->copy(reinterpret_cast<std::byte*>(got.data()), memory_.back().data(), got.size() * 2, *stream);
    stream->wait(Deadline::after(std::chrono::seconds(60)));
    double worst = 0, largest = 1e-6;
    const auto compare = [&](std::size_t at, double expected) {
      const double difference = std::fabs(expected - bf16_to_float(got.at(at)));
      if (!(difference <= worst)) worst = difference;
      largest = std::max(largest, std::fabs(expected));
    };
    if (work_.attention) compare_attention(compare);
    else compare_norm(compare);
    return slowest(std::isnan(worst) ? 1e30 : worst / largest);
  }

 private:
  // Built once, on rank 0, so that all have the same.
  static Engine engine_of(const Work& work, Group& world) {
    std::vector<std::byte> file;
    if (world.rank() == 0) {
      BuildOptions options;
      options.device = "cuda";
      if (!work.form.empty()) options.kernels = {"cuda_attention_" + work.form, "cuda_flat_attention_" + work.form};
      if (work.apart) options.disabled_passes = {"fuse_reduce_norm"};
      const Array bytes = build(network_of(work, world.size()), options).to_bytes();
      file.assign(bytes.data.get(), bytes.data.get() + bytes.size_bytes());
    }
    const std::vector<std::byte> bytes = world.exchange(file, Deadline::after(std::chrono::seconds(120))).at(0);
    std::shared_ptr<std::byte> memory(new std::byte[bytes.size()], std::default_delete<std::byte[]>());
    std::memcpy(memory.get(), bytes.data(), bytes.size());
    return load_engine(Array{DType::u8, {static_cast<std::int64_t>(bytes.size())}, memory});
  }

  // Seconds per call of this rank.
  double call(int calls) {
    world_.exchange({}, Deadline::after(std::chrono::seconds(60)));
    const std::int64_t begin = monotonic_ns();
    for (int i = 0; i < calls; ++i) context_->enqueue(ins_, outs_);
    context_->synchronize();
    return static_cast<double>(monotonic_ns() - begin) / 1e9 / calls;
  }

  double slowest(double mine) {
    for (const auto& blob : world_.exchange(std::as_bytes(std::span(&mine, 1)), Deadline::after(std::chrono::seconds(60)))) {
      double other = 0;
      std::memcpy(&other, blob.data(), sizeof other);
      mine = std::max(mine, other);
    }
    return mine;
  }

  // Inputs lie [row, heads of q, k and v, size] over all ranks, results [row, head, size] on each.
  template <typename Compare>
  void compare_attention(const Compare& compare) const {
    const std::int64_t local = work_.length / world_.size();
    const Numbers& in = numbers_[0];
    const std::int64_t heads = work_.heads, ratio = heads / work_.kv_heads, all = heads + 2 * work_.kv_heads;
    const auto element = [&](std::int64_t row, std::int64_t part, std::int64_t head, std::int64_t d) {
      const std::int64_t at = part == 0 ? head : heads + (part - 1) * work_.kv_heads + head / ratio;
      return in.at((row * all + at) * kSize + d);
    };
    for (const std::int64_t mine : {std::int64_t{0}, local / 3, local - 1}) {
      const std::int64_t row = world_.rank() * local + mine, head = (mine * 7 + 5) % heads, columns = work_.causal ? row + 1 : work_.length;
      std::vector<double> weights(static_cast<std::size_t>(columns));
      double top = -INFINITY, total = 0;
      for (std::int64_t j = 0; j < columns; ++j) {
        double score = 0;
        for (std::int64_t d = 0; d < kSize; ++d) score += element(row, 0, head, d) * element(j, 1, head, d);
        top = std::max(top, weights[static_cast<std::size_t>(j)] = score / std::sqrt(static_cast<double>(kSize)));
      }
      for (double& weight : weights) total += weight = std::exp(weight - top);
      for (std::int64_t d = 0; d < kSize; ++d) {
        double sum = 0;
        for (std::int64_t j = 0; j < columns; ++j) sum += weights[static_cast<std::size_t>(j)] * element(j, 2, head, d);
        compare(static_cast<std::size_t>((mine * heads + head) * kSize + d), sum / total);
      }
    }
  }

  // All ranks' rows, rounded where the plan stores: the sum over ranks, that with the residual, the result.
  template <typename Compare>
  void compare_norm(const Compare& compare) const {
    const auto stored = [](double value) { return static_cast<double>(bf16_to_float(float_to_bf16(static_cast<float>(value)))); };
    const auto at = [](std::int64_t r, std::int64_t c) { return static_cast<std::size_t>(r * kWidth + c); };
    for (const std::int64_t row : {std::int64_t{0}, work_.length - 1}) {
      std::vector<double> x(at(world_.size(), 0)), with_residual(kWidth);
      for (std::int64_t r = 0; r < world_.size(); ++r)
        for (std::int64_t c = 0; c < kWidth; ++c) x[at(r, c)] = numbers_[0].at((r * work_.length + row) * kWidth + c);
      for (int i = 0; i < kChained; ++i) {
        double squares = 0;
        for (std::int64_t c = 0; c < kWidth; ++c) {
          double sum = 0;
          for (std::int64_t r = 0; r < world_.size(); ++r) sum += x[at(r, c)];
          const double value = with_residual[at(0, c)] = stored(stored(sum) + numbers_[1].at(row * kWidth + c));
          squares += value * value;
        }
        const double scale = 1 / std::sqrt(squares / static_cast<double>(kWidth) + 1e-5);
        for (std::int64_t r = 0; r < world_.size(); ++r)
          for (std::int64_t c = 0; c < kWidth; ++c) x[at(r, c)] = stored(with_residual[at(0, c)] * scale * numbers_[2].at(r * kWidth + c));
      }
      for (std::int64_t c = 0; c < kWidth; ++c) compare(at(row, c), x[at(world_.rank(), c)]);
    }
  }

  const Work& work_;
  Group& world_;
  std::shared_ptr<Device> device_;
  OnDevice on_device_;
  Engine engine_;
  std::optional<Context> context_;
  std::vector<Numbers> numbers_ = {Numbers(1), Numbers(2), Numbers(3)};
  std::vector<DeviceMemory> memory_;
  std::vector<const void*> ins_;
  std::vector<void*> outs_;
  Shape out_shape_;
};

Json answer_of(const std::vector<Work>& list, const std::string& name, bool compared, Group& world) {
  const auto work = std::ranges::find(list, name, &Work::name);
  if (work == list.end()) return {{"name", name}, {"failed", "there is no such row"}};
  Row row(*work, world);
  Json answer = {{"name", name}};
  if (compared) {
    answer["error"] = row.error();
    answer["limit"] = work->attention ? kAttentionLimit : kChainLimit;
  }
  const double seconds = row.measure() / (work->attention ? 1 : kChained);
  answer["us"] = seconds * 1e6;
  if (work->attention)
    answer["tflop_s"] = 4.0 * static_cast<double>(work->heads * kSize) * static_cast<double>(work->length) *
                        static_cast<double>(work->length) / (work->causal ? 2 : 1) / seconds / 1e12;
  return answer;
}

// Rank 0 reads names and tells them to the others; an empty one ends.
void serve(int rank, int ranks, const std::string& address) {
  const std::unique_ptr<Group> world = Group::join(rank, ranks, address, {.rendezvous_deadline_s = 60, .step_deadline_s = 60});
  const std::vector<Work> list = all_work();
  std::set<std::string> seen;
  for (;;) {
    std::string name;
    if (rank == 0) std::getline(std::cin, name);
    const auto told = world->exchange(std::as_bytes(std::span(name)), Deadline::after(std::chrono::minutes(10))).at(0);
    name.assign(reinterpret_cast<const char*>(told.data()), told.size());
    if (name.empty()) return;
    Json answer = {{"name", name}};
    try {
      answer = answer_of(list, name, seen.insert(name).second, *world);
    } catch (const Error& error) {
      answer["failed"] = error.what();
    }
    if (rank == 0) fmt::print("{}\n", answer.dump());
    std::fflush(stdout);
    if (answer.contains("failed")) return;  // the ranks may be apart now
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view word = argc < 2 ? "--list" : argv[1];
  if (word == "--list" || word == "--forms") {
    for (const Work& work : all_work())
      if (work.form.empty() == (word == "--list")) fmt::print("{}\n", work.name);
    return 0;
  }
  const int ranks = std::atoi(argv[1]);
  const std::string address = fmt::format("127.0.0.1:{}", 20000 + getpid() % 20000);
  int rank = 0;
  for (int r = 1; r < ranks && rank == 0; ++r)
    if (fork() == 0) rank = r;  // before anything of CUDA
  try {
    serve(rank, ranks, address);
  } catch (const Error& error) {
    fmt::print(stderr, "rank {}: {}\n", rank, error.what());
    return 1;
  }
  if (rank == 0)
    while (wait(nullptr) > 0) {
    }
  return 0;
}
