// The pipeline: the list of passes from an imported module to the program that `build` plans, and the loop that runs it.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "graph/graph.h"

namespace tandem {

enum class Phase { simplify, shard, fuse };
std::string_view to_string(Phase phase);

// Where convolutions have the channels of their images last: nowhere, where that moves fewer bytes in 16-bit floats, or wherever they can.
enum class ChannelsLast { off, where_it_saves, everywhere };

// What a pass may depend on besides the module.
struct PassOptions {
  Mesh mesh;
  // Strategy per mesh axis; an axis that is not named gets the strategy of its name.
  std::map<std::string, std::string> strategies;
  // Inputs and outputs that are to lie otherwise than the strategies say: name → "same" or "DIM:AXIS[,DIM:AXIS…]".
  std::map<std::string, std::string> io;
  // f16 or bf16: what f32 computation becomes where that does little harm (lower_precision); none: it stays.
  std::optional<DType> dtype = {};
  // i8, i4 or f8e4m3: what the matrices of products become (quantize_weights); none: they stay.
  std::optional<DType> weights = {};
  ChannelsLast channels_last = ChannelsLast::off;
  std::string device = "cpu";  // the kind that the program is for
  // Every rank runs what becomes of this module. False for a module per rank: collectives then stay as they are written.
  bool same_program = true;
};

struct Pass {
  std::string_view name;  // the word for --disable-pass, dumps and tests
  Phase phase;
  bool (*run)(Module&, const PassOptions&);  // whether it changed anything
  std::string_view doc;
};

// In the order they run.
std::span<const Pass> all_passes();
// Error(invalid_argument) listing the names if there is none.
const Pass& pass_named(std::string_view name);

struct PipelineOptions {
  PassOptions pass;
  std::set<std::string> disabled;
  std::set<Phase> phases = {Phase::simplify, Phase::shard, Phase::fuse};
  std::filesystem::path dump;  // a folder for 00_import.txt, 01_NAME.txt, …; empty: none
  bool verify = true;
  // Told after each pass that ran.
  std::function<void(const Pass&, double seconds, bool changed)> timing;
};

// Runs the passes that are not disabled. An unknown name among the disabled is Error(invalid_argument); a pass that breaks
// the module is Error(internal) naming the pass; a folder that cannot be written is Error(io).
void run_pipeline(Module& module, const PipelineOptions& options);

}  // namespace tandem
