#include "tandem/bench.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "api/run/engine_data.h"
#include "build/build.h"
#include "core/check.h"
#include "core/collective.h"
#include "graph/builder.h"
#include "ops/ops.h"
#include "passes/pipeline.h"

namespace tandem {
namespace {

constexpr int kCallsInARow = 16;

struct Times {
  double min = 0, median = 0, p99 = 0;  // seconds
};

Times run_often(Model& model, const RankArrays& inputs, int runs, RankArrays& outputs, const ProgressCallback& progress,
                const std::string& what) {
  if (runs < 1) fail(ErrorCode::invalid_argument, "{} runs time nothing", runs);
  for (int i = 0; i < 3; ++i) outputs = model.run(inputs);
  std::vector<double> seconds;
  for (int i = 0; i < runs; ++i) {
    if (progress) progress(what, static_cast<double>(i) / runs);
    outputs = model.run(inputs);
    seconds.push_back(model.last_seconds());
  }
  std::ranges::sort(seconds);
  const auto at = [&](double part) {
    return seconds[std::min(seconds.size() - 1, static_cast<std::size_t>(part * static_cast<double>(seconds.size())))];
  };
  return {seconds.front(), at(0.5), at(0.99)};
}

Engine engine_of(std::shared_ptr<Module> module) {
  auto data = std::make_shared<EngineData>();
  data->plans.push_back(std::make_shared<Plan>(build_plan(*module)));
  data->weights = [module](const PlanWeight& weight, int) {
    return run_recipe(*weight.recipe, [&](const std::string& name) { return module->source(name); }, {});
  };
  return Engine(std::move(data));
}

Array random_array(DType dtype, const Shape& shape, std::mt19937& generator) {
  std::uniform_real_distribution<double> real(-1, 1);
  Tensor tensor(dtype, shape);
  for (std::int64_t i = 0; i < tensor.count(); ++i)
    store_element(dtype, tensor.mutable_data(), i, is_float(dtype) ? real(generator) : static_cast<double>(generator() % 8));
  return to_array(tensor);
}

// The largest difference, relative to the largest magnitude of `want`.
double difference(const Tensor& want, const Tensor& got) {
  check(want.shape() == got.shape(), "results have the expected shape");
  double largest = 0, worst = 0;
  for (std::int64_t i = 0; i < want.count(); ++i) {
    largest = std::max(largest, std::fabs(want.at(i)));
    const double d = std::fabs(want.at(i) - got.at(i));
    worst = std::isnan(d) ? INFINITY : std::max(worst, d);
  }
  return largest > 0 ? worst / largest : worst;
}

double tolerance(DType dtype) {
  return dtype == DType::f16 ? 2e-2 : dtype == DType::bf16 ? 1e-1 : dtype == DType::f32 ? 1e-5 : is_float(dtype) ? 1 : 0;
}

// ---- collectives

// The same call some times in a row: each reads the input anew, the last gives the output.
Engine collective_engine(const CollectiveInfo& row, const CollectiveBench& options, std::int64_t elements) {
  auto module = std::make_shared<Module>(all_ops());
  Graph& graph = module->add_graph("main");
  module->mesh = Mesh({{"rank", options.ranks}});
  Value* x = graph.add_input("x", {options.dtype, {elements}});
  x->sharding.varying = {"rank"};
  NamedAttributes attributes = {{"num_ranks", std::int64_t{options.ranks}}, {"axis", std::string("rank")}};
  if (row.reduces) attributes.emplace_back("reduce", options.reduce);
  if (row.rooted) attributes.emplace_back("root", std::int64_t{0});
  GraphBuilder builder(graph);
  Value* y = nullptr;
  for (int i = 0; i < kCallsInARow; ++i) {
    builder.set_context(fmt::format("{} {}", row.name, i));
    y = builder.add(row.op, {x}, attributes);
  }
  y->sharding.varying = {"rank"};
  graph.outputs().push_back({"y", y});
  return engine_of(std::move(module));
}

double reduced(const std::string& reduce, const std::vector<Tensor>& in, std::int64_t i) {
  double value = in[0].at(i);
  for (std::size_t r = 1; r < in.size(); ++r) {
    const double next = in[r].at(i);
    value = reduce == "prod"  ? value * next
            : reduce == "max" ? std::max(value, next)
            : reduce == "min" ? std::min(value, next)
                              : value + next;
  }
  return reduce == "avg" ? value / static_cast<double>(in.size()) : value;
}

// Element i of the output of `rank`, by the table of what collectives mean.
double expected(const CollectiveInfo& row, const std::string& reduce, const std::vector<Tensor>& in, int rank, std::int64_t i) {
  const auto n = static_cast<std::int64_t>(in.size());
  const std::int64_t count = in[0].count(), part = count / n;
  const auto of = [&](std::int64_t r, std::int64_t at) { return in[static_cast<std::size_t>(r)].at(at); };
  switch (row.kind) {
    case Collective::all_reduce: return reduced(reduce, in, i);
    case Collective::reduce: return rank == 0 ? reduced(reduce, in, i) : 0;
    case Collective::reduce_scatter: return reduced(reduce, in, rank * part + i);
    case Collective::all_gather: return of(i / count, i % count);
    case Collective::gather: return rank == 0 ? of(i / count, i % count) : 0;
    case Collective::broadcast: return of(0, i);
    case Collective::scatter: return of(0, rank * part + i);
    case Collective::all_to_all: return of(i / part, rank * part + i % part);
    case Collective::shift: return of((rank + n - 1) % n, i);
  }
  return 0;
}

double check_collective(const CollectiveInfo& row, const CollectiveBench& options, const RankArrays& inputs, const RankArrays& outputs) {
  std::vector<Tensor> in;
  for (const Array& array : inputs.at("x")) in.push_back(to_tensor(array));
  double worst = 0;
  for (int rank = 0; rank < options.ranks; ++rank) {
    const Tensor got = to_tensor(outputs.at("y").at(static_cast<std::size_t>(rank)));
    Tensor want(DType::f64, got.shape());
    for (std::int64_t i = 0; i < want.count(); ++i)
      store_element(DType::f64, want.mutable_data(), i, expected(row, options.reduce, in, rank, i));
    worst = std::max(worst, difference(want, got));
  }
  if (worst > tolerance(options.dtype) * options.ranks)
    fail(ErrorCode::internal, "{} gave a wrong result: it is off by {:.2e} of the largest magnitude", row.name, worst);
  return worst;
}

// Bytes that every rank sends or receives at least, as nccl-tests counts them.
double bus_bytes(const CollectiveInfo& row, double bytes, int ranks) {
  const double share = (ranks - 1.0) / ranks;
  switch (row.kind) {
    case Collective::all_reduce: return 2 * share * bytes;
    case Collective::all_gather:
    case Collective::gather: return (ranks - 1.0) * bytes;
    case Collective::reduce_scatter:
    case Collective::all_to_all:
    case Collective::scatter: return share * bytes;
    default: return bytes;
  }
}

CollectiveTime time_collective(const CollectiveInfo& row, const CollectiveBench& options, std::int64_t size) {
  const std::int64_t unit = static_cast<std::int64_t>(bytes(options.dtype, 1)) * options.ranks;
  const std::int64_t elements = std::max<std::int64_t>(1, size / unit) * options.ranks;
  std::mt19937 generator(7);
  RankArrays inputs, outputs;
  for (int rank = 0; rank < options.ranks; ++rank) inputs["x"].push_back(random_array(options.dtype, {elements}, generator));
  Model model(collective_engine(row, options, elements), options.team);
  const Times times =
      run_often(model, inputs, options.runs, outputs, options.progress,
                fmt::format("timing {} of {} bytes", row.name, elements * static_cast<std::int64_t>(bytes(options.dtype, 1))));
  CollectiveTime result{
      std::string(row.name), elements * static_cast<std::int64_t>(bytes(options.dtype, 1)), times.min, times.median, times.p99, 0, 0};
  for (double* us : {&result.min_us, &result.median_us, &result.p99_us}) *us *= 1e6 / kCallsInARow;
  result.bus_gb_s = bus_bytes(row, static_cast<double>(result.bytes), options.ranks) / result.median_us / 1e3;
  result.error = check_collective(row, options, inputs, outputs);
  return result;
}

// ---- attention

Engine attention_engine(const AttentionBench& o, int ranks) {
  auto module = std::make_shared<Module>(all_ops());
  Graph& graph = module->add_graph("main");
  const auto input = [&](const char* name, std::int64_t heads) {
    return graph.add_input(name, {o.dtype, {o.batch, heads, o.sequence, o.head_size}});
  };
  Value *q = input("q", o.heads), *k = input("k", o.kv_heads), *v = input("v", o.kv_heads);
  GraphBuilder builder(graph);
  builder.set_context("attention");
  graph.outputs().push_back({"y", builder.add("Attention", {q, k, v},
                                              {{"scale", 1 / std::sqrt(static_cast<double>(o.head_size))},
                                               {"causal", std::string(o.causal ? "upper_left" : "none")}})});
  PipelineOptions pipeline;
  if (ranks > 1) pipeline.pass.mesh = Mesh({{"cp", ranks}});
  run_pipeline(*module, pipeline);
  return engine_of(std::move(module));
}

}  // namespace

std::vector<CollectiveTime> bench_collectives(const CollectiveBench& options) {
  if (options.ranks < 2) fail(ErrorCode::invalid_argument, "collectives need two ranks or more, not {}", options.ranks);
  parse_reduction(options.reduce);
  std::vector<CollectiveTime> times;
  for (const CollectiveInfo& row : collectives()) {
    if (!options.operations.empty() && std::ranges::find(options.operations, row.name) == options.operations.end()) continue;
    for (const std::int64_t size : options.sizes) times.push_back(time_collective(row, options, size));
  }
  for (const std::string& word : options.operations) parse_collective(word);
  return times;
}

std::vector<AttentionTime> bench_attention(const AttentionBench& options) {
  std::mt19937 generator(7);
  RankArrays inputs, outputs;
  const auto array = [&](std::int64_t heads) {
    return std::vector{random_array(options.dtype, {options.batch, heads, options.sequence, options.head_size}, generator)};
  };
  inputs = {{"q", array(options.heads)}, {"k", array(options.kv_heads)}, {"v", array(options.kv_heads)}};
  const double flop = 4.0 * static_cast<double>(options.batch * options.heads * options.sequence * options.sequence * options.head_size) /
                      (options.causal ? 2 : 1);
  std::vector<AttentionTime> times;
  Tensor reference;
  for (const int ranks : options.ranks > 1 ? std::vector{1, options.ranks} : std::vector{1}) {
    const Engine engine = attention_engine(options, ranks);
    Model model(engine, options.team);
    const Times t = run_often(model, inputs, options.runs, outputs, options.progress,
                              fmt::format("timing attention over {} rank{}", ranks, ranks == 1 ? "" : "s"));
    AttentionTime& time = times.emplace_back(AttentionTime{ranks, t.min * 1e3, t.median * 1e3, t.p99 * 1e3, flop / t.median / 1e9, 0, {}});
    for (const CollectiveReport& use : engine.collectives())
      time.exchange += fmt::format("{}{} ({} bytes)", time.exchange.empty() ? "" : ", ", use.operation, use.bytes);
    const Tensor got = to_tensor(outputs.at("y").at(0));
    if (ranks == 1) reference = got;
    else time.error = difference(reference, got);
    if (time.error > tolerance(options.dtype))
      fail(ErrorCode::internal, "attention over {} ranks is off by {:.2e} of the largest magnitude", ranks, time.error);
  }
  return times;
}

}  // namespace tandem
