// tandem bench collectives, tandem bench attention
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/progress.h"
#include "cli/verbs.h"
#include "tandem/bench.h"

namespace tandem::cli {
namespace {

using Json = nlohmann::json;

std::string readable(std::int64_t bytes) {
  if (bytes >= 1 << 20 && bytes % (1 << 20) == 0) return fmt::format("{} MiB", bytes >> 20);
  if (bytes >= 1 << 10 && bytes % (1 << 10) == 0) return fmt::format("{} KiB", bytes >> 10);
  return fmt::format("{} B", bytes);
}

}  // namespace

Run add_bench_collectives(CLI::App& app, Common& common) {
  struct State {
    CollectiveBench bench;
    std::vector<std::string> sizes;
    std::string dtype = "f32";
  };
  auto state = std::make_shared<State>();
  app.add_option("--ranks", state->bench.ranks, "how many ranks take part")->check(CLI::Range(2, 256))->capture_default_str();
  app.add_option("--operation", state->bench.operations, "all_reduce, all_gather, …; default: all of them")->delimiter(',');
  app.add_option("--size", state->sizes, "bytes of the input of a rank, like 4K,64K,4M (the default)")->delimiter(',');
  app.add_option("--reduce", state->bench.reduce, "sum, prod, max, min or avg")->capture_default_str();
  app.add_option("--dtype", state->dtype, "f32, f16, bf16, i32, …")->capture_default_str();
  app.add_option("--runs", state->bench.runs, "timed runs of several calls each")->check(CLI::Range(1, 1000000))->capture_default_str();
  app.footer(
      "Every result is compared with a plain loop over the same inputs.\nExample:\n  tandem bench collectives --ranks 2 --operation "
      "all_reduce --size 4K,64K,4M");
  return [state, &common] {
    CollectiveBench& bench = state->bench;
    if (!state->sizes.empty()) bench.sizes.clear();
    for (const std::string& text : state->sizes) bench.sizes.push_back(parse_size(text, "--size"));
    bench.dtype = parse_dtype(state->dtype);
    bench.team = common.team();
    bench.progress = show_progress(common);
    const auto times = bench_collectives(bench);
    bench.progress = {};
    Json rows = Json::array();
    for (const CollectiveTime& t : times)
      rows.push_back({{"operation", t.operation},
                      {"bytes", t.bytes},
                      {"min_us", t.min_us},
                      {"median_us", t.median_us},
                      {"p99_us", t.p99_us},
                      {"bus_gb_s", t.bus_gb_s},
                      {"error", t.error}});
    if (common.json) {
      fmt::print("{}\n", Json{{"ranks", bench.ranks}, {"dtype", state->dtype}, {"results", rows}}.dump());
      return 0;
    }
    fmt::print("{} ranks, {}, microseconds of a call on the slowest rank\n{:<16}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n", bench.ranks,
               state->dtype, "operation", "bytes", "min", "median", "p99", "bus GB/s", "error");
    for (const CollectiveTime& t : times)
      fmt::print("{:<16}{:>10}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.0e}\n", t.operation, readable(t.bytes), t.min_us, t.median_us,
                 t.p99_us, t.bus_gb_s, t.error);
    return 0;
  };
}

Run add_bench_attention(CLI::App& app, Common& common) {
  struct State {
    AttentionBench bench;
    std::string dtype = "f32";
    std::int64_t kv_heads = 0;
  };
  auto state = std::make_shared<State>();
  AttentionBench& bench = state->bench;
  const auto extent = [&](const char* name, std::int64_t& value, const char* doc) {
    app.add_option(name, value, doc)->check(CLI::Range(1, 1 << 24))->capture_default_str();
  };
  app.add_option("--ranks", bench.ranks, "over how many ranks the sequence is split")->check(CLI::Range(1, 256))->capture_default_str();
  extent("--batch", bench.batch, "sequences");
  extent("--heads", bench.heads, "query heads");
  extent("--sequence", bench.sequence, "positions");
  extent("--head-size", bench.head_size, "width of a head");
  app.add_option("--kv-heads", state->kv_heads, "key and value heads; default: as many as query heads")->check(CLI::Range(1, 1 << 24));
  app.add_flag("--causal", bench.causal, "position i attends to j ≤ i");
  app.add_option("--dtype", state->dtype, "f32, f16 or bf16")->check(CLI::IsMember({"f32", "f16", "bf16"}))->capture_default_str();
  app.add_option("--runs", bench.runs, "timed runs")->check(CLI::Range(1, 1000000))->capture_default_str();
  app.footer(
      "The result over several ranks is compared with that of one.\nExample:\n  tandem bench attention --ranks 2 --sequence 2048 --heads "
      "12 --causal");
  return [state, &common] {
    AttentionBench& b = state->bench;
    b.kv_heads = state->kv_heads > 0 ? state->kv_heads : b.heads;
    b.dtype = parse_dtype(state->dtype);
    b.team = common.team();
    b.progress = show_progress(common);
    const auto times = bench_attention(b);
    b.progress = {};
    Json rows = Json::array();
    for (const AttentionTime& t : times)
      rows.push_back({{"ranks", t.ranks},
                      {"min_ms", t.min_ms},
                      {"median_ms", t.median_ms},
                      {"p99_ms", t.p99_ms},
                      {"gflop_s", t.gflop_s},
                      {"error", t.error},
                      {"exchange", t.exchange},
                      {"speed_up", times[0].median_ms / t.median_ms}});
    if (common.json) {
      fmt::print("{}\n", Json{{"batch", b.batch},
                              {"heads", b.heads},
                              {"kv_heads", b.kv_heads},
                              {"sequence", b.sequence},
                              {"head_size", b.head_size},
                              {"causal", b.causal},
                              {"dtype", state->dtype},
                              {"results", rows}}
                             .dump());
      return 0;
    }
    for (const AttentionTime& t : times)
      fmt::print("{} rank{}: min {:.3f} ms, median {:.3f} ms, p99 {:.3f} ms, {:.1f} GFLOP/s, {:.2f}× of one rank{}\n", t.ranks,
                 t.ranks == 1 ? "" : "s", t.min_ms, t.median_ms, t.p99_ms, t.gflop_s, times[0].median_ms / t.median_ms,
                 t.exchange.empty() ? "" : fmt::format("; {}; off by {:.0e}", t.exchange, t.error));
    return 0;
  };
}

}  // namespace tandem::cli
