// The program `tandem`. Results go to stdout, everything else to stderr; exit codes: 0 done, 1 the answer is no, 2 wrong usage,
// 130 and 143 on signals.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/signals.h"
#include "cli/verbs.h"

namespace {

using namespace tandem;

struct Verb {
  const char* name;
  const char* doc;
  cli::Run (*add)(CLI::App&, cli::Common&);
};

constexpr Verb kVerbs[] = {
    {"run", "start the ranks, run the model once, gather the outputs", cli::add_run},
    {"verify", "compare the sharded model with the unsharded one and with recorded cases", cli::add_verify},
    {"inspect", "print mesh, inputs, outputs, steps, collectives with bytes, memory per rank", cli::add_inspect},
    {"bench", "time the model: latency and throughput after warm-up", cli::add_bench},
    {"doctor", "what this machine offers", cli::add_doctor},
};

void add_common(CLI::App& app, cli::Common& common) {
  app.add_flag("--json", common.json, "machine-readable results");
  app.add_option("--log-level", common.log_level, "what to say on stderr")->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}));
  app.add_option("--device", common.device, "where to run")->check(CLI::IsMember({"cpu"}));
  app.add_option("--deadline", common.deadline, "seconds a step may take without progress")->check(CLI::Range(1.0, 1e6));
  app.add_option("--threads", common.threads, "per rank; default: cores / ranks")->check(CLI::Range(1, 1024));
  app.add_option("--isolate", common.isolate, "ranks as processes or as threads")->check(CLI::IsMember({"processes", "threads"}));
}

int report(const cli::Common& common, const Error& error) {
  if (common.json) {
    nlohmann::json out = {{"code", to_string(error.code())}, {"message", error.what()}};
    if (!error.node().empty()) out["node"] = error.node();
    if (error.rank() >= 0) out["rank"] = error.rank();
    fmt::print("{}\n", nlohmann::json{{"error", out}}.dump());
  }
  fmt::print(stderr, "tandem: {}\n", error.what());
  return error.code() == ErrorCode::interrupted && cli::signal_caught() ? 128 + cli::signal_caught() : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && argv[1] == cli::kRankVerb) return serve_rank(argv[2]);
  cli::catch_signals();
  CLI::App app("Shards one model over several ranks, compiles it and runs it as if the ranks were one device.", "tandem");
  app.set_version_flag("--version", "tandem 0.1.0");
  app.require_subcommand(1);
  cli::Common common;
  cli::Run chosen;
  for (const Verb& verb : kVerbs) {
    CLI::App* sub = app.add_subcommand(verb.name, verb.doc);
    add_common(*sub, common);
    sub->callback([&chosen, run = verb.add(*sub, common)] { chosen = run; });
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    return chosen();
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "tandem: {}\n", error.what());
    return 2;
  } catch (const Error& error) {
    return report(common, error);
  } catch (const std::bad_alloc&) {
    return report(common, Error(ErrorCode::out_of_memory, "out of memory"));
  } catch (const std::exception& error) {
    return report(common, Error(ErrorCode::internal, error.what()));
  }
}
