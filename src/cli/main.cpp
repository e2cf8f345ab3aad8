// The program `tandem`. Results go to stdout, everything else to stderr; exit codes: 0 done, 1 the answer is no, 2 wrong usage,
// 130 and 143 on signals.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/signals.h"
#include "cli/verbs.h"
#include "tandem/gpu.h"

namespace {

using namespace tandem;

struct Verb {
  const char* name;
  const char* doc;
  cli::Run (*add)(CLI::App&, cli::Common&);
  const char* examples;
};

constexpr Verb kVerbs[] = {
    {"build", "compile a model into one engine file for all ranks", cli::add_build,
     "  tandem build model.onnx -o model.tandem --mesh tp=2\n"
     "  tandem build model.onnx -o model.tandem --mesh dp=2 --shape input_ids=1x8:8x128:64x512 --timing-cache times.json\n"
     "  tandem build model.onnx -o bare.tandem --mesh tp=2 --no-weights\n"
     "  tandem build 'part_{rank}.onnx' --ranks 2 -o 'part_{rank}.tandem'"},
    {"refit", "put new weights into an engine, by name", cli::add_refit,
     "  tandem refit bare.tandem --weights checkpoint.safetensors -o model.tandem\n"
     "  tandem refit bare.tandem --weights model.onnx -o model.tandem"},
    {"run", "start the ranks, run the model once, gather the outputs", cli::add_run,
     "  tandem run model.onnx                                      one rank, random inputs of the declared shapes\n"
     "  tandem run model.onnx --mesh tp=2 --inputs in.safetensors --outputs out.safetensors\n"
     "  tandem run model.onnx --mesh dp=2,tp=2 --input ids=ids.npy --trace timeline.json\n"
     "  tandem run 'part_{rank}.onnx' --ranks 2                    files that another tool has sharded\n"
     "  tandem run model.tandem --timing --timing-cache times.json an engine that was built elsewhere, its kernels timed here"},
    {"verify", "compare the sharded model with the unsharded one and with recorded cases", cli::add_verify,
     "  tandem verify model.onnx --mesh tp=2 --mesh dp=2           sharded against unsharded, random inputs\n"
     "  tandem verify model.onnx --mesh tp=2 --cases recorded.safetensors\n"
     "  tandem verify model.onnx                                   one rank against plain loops; slow\n"
     "  tandem verify 'part_{rank}.onnx' --ranks 2 --cases recorded.safetensors"},
    {"inspect", "print mesh, inputs, outputs, steps, collectives with bytes, memory per rank", cli::add_inspect,
     "  tandem inspect model.onnx --mesh tp=2\n"
     "  tandem inspect model.onnx --mesh tp=2 --html report.html\n"
     "  tandem inspect model.onnx --mesh tp=2 --json | jq .collectives"},
    {"bench", "time the model: latency and throughput after warm-up", cli::add_bench,
     "  tandem bench model.onnx --mesh tp=2 --shape input_ids=8x128\n"
     "  tandem bench collectives --ranks 2 --operation all_reduce --size 4K,64K,4M\n"
     "  tandem bench attention --ranks 2 --sequence 2048 --causal"},
    {"doctor", "what this machine offers", cli::add_doctor,
     "  tandem doctor\n"
     "  tandem doctor --json | jq .libraries"},
};

void allow_no_pdl(cli::Common& common) {
  if (device_kinds().size() == 1)
    throw CLI::ValidationError("--no-pdl", "is about kernels of GPU ranks; this program has CPU ranks only, which start no kernel early");
  common.no_pdl = true;
}

// Hidden: a word that users may expect, and the answer.
void add_launch(CLI::App& app) {
  CLI::App* launch = app.add_subcommand("launch", "")->group("")->prefix_command();
  launch->set_help_flag();
  launch->callback([] {
    throw CLI::ValidationError("launch", "does not exist yet: `tandem run` and the other verbs start their own ranks, on this host");
  });
}

void add_common(CLI::App& app, cli::Common& common) {
  app.add_flag("--json", common.json, "machine-readable results");
  app.add_option("--log-level", common.log_level, "what to say on stderr")->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}));
  app.add_option("--device", common.device, "where to run: cpu or cuda; an engine knows its own, else cpu")->check(cli::of_device);
  app.add_option("--deadline", common.deadline, "seconds a step may take without progress")->check(CLI::Range(1.0, 1e6));
  app.add_option("--threads", common.threads, "per rank; default: cores / ranks")->check(CLI::Range(1, 1024));
  app.add_option("--isolate", common.isolate, "ranks as processes or as threads")->check(CLI::IsMember({"processes", "threads"}));
  app.add_flag("--strict", common.load.strict,
               "refuse an engine that was built with other libraries, instead of choosing the affected steps again");
  app.add_flag_callback(
      "--no-pdl", [&common] { allow_no_pdl(common); },
      "GPU ranks start no kernel before its predecessor ends; programs with CPU ranks only refuse the option");
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

// `json` is not yet known where the command line could not be read.
int report_usage(int argc, char** argv, const CLI::ParseError& error) {
  const std::vector<std::string_view> words(argv + 1, argv + argc);
  if (std::ranges::find(words, "--json") != words.end())
    fmt::print("{}\n", nlohmann::json{{"error", {{"code", "usage"}, {"message", error.what()}}}}.dump());
  fmt::print(stderr, "tandem: {}\nRun tandem --help, or tandem VERB --help, for what can be given.\n", error.what());
  return 2;
}

int run_verb(int argc, char** argv) {
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
    if (verb.examples) sub->footer(std::string("Examples:\n") + verb.examples);
  }
  add_launch(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return error.get_exit_code() == 0 ? app.exit(error) : report_usage(argc, argv, error);
  }
  try {
    return chosen();
  } catch (const CLI::ParseError& error) {
    return report_usage(argc, argv, error);
  } catch (const Error& error) {
    return report(common, error);
  } catch (const std::bad_alloc&) {
    return report(common, Error(ErrorCode::out_of_memory, "out of memory"));
  } catch (const std::exception& error) {
    return report(common, Error(ErrorCode::internal, error.what()));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int status = run_verb(argc, argv);
  if (gpu_lost()) {  // else exit handlers of NVIDIA's libraries would wait for what it does not end
    std::fflush(nullptr);
    std::quick_exit(status);
  }
  return status;
}
