// From model files to engines, and the check that a sharded model is still the same model. Public.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tandem/team.h"

namespace tandem {

struct BuildOptions {
  std::string device;  // "cpu" or "cuda"; empty: cpu, and of an engine file its own
  std::string target;  // the GPU it is for, like "sm_90a"; empty: any that this program has kernels for
  std::string mesh;    // "tp=2,cp=2"; empty: one rank
  // Of files that another tool has sharded; without a mesh, of others too: the cheapest mesh by cost is taken. 0: the mesh says.
  int ranks = 0;
  std::map<std::string, std::string> strategies;  // per axis; an axis that is not named gets the strategy of its name
  // Inputs, outputs and weights that are to lie otherwise than the strategies and the file's sharding annotations say: name → "same" or
  // "DIM:AXIS[,DIM:AXIS…]".
  std::map<std::string, std::string> io;
  std::map<std::string, std::string> shapes;  // per input "1x1:8x128:64x512" (smallest, typical, largest) or "8x128"
  // Several optimization profiles: for each the inputs' shapes, as above, before those of `shapes`. The engine then has a program for each,
  // with kernels chosen for its typical shapes, and the weights once. They may overlap. Empty: one profile, that of `shapes`.
  std::vector<std::map<std::string, std::string>> profiles;
  std::vector<std::string> disabled_passes;
  std::string dump;  // folder for numbered graphs; empty: none
  // "f16" or "bf16": f32 products and what lies between them are computed in it; norms, softmax, inputs and outputs stay. Empty: as the
  // file says.
  std::string dtype;
  // "int8", "int4" or "fp8": the matrices of products are quantised, symmetric: int8 and fp8 (e4m3) with a scale per column, int4 with one
  // per 64 or 32 rows of a column. Activations stay as they are. Empty: as the file says.
  std::string weights;
  // Images between convolutions have their channels last, as kernels of 16-bit floats on GPUs want them: "auto", where that saves bringing
  // them there and back; "all", wherever it can be done; "none", nowhere. Results change by rounding only. Empty: "auto" for GPUs, "none"
  // for CPUs.
  std::string channels_last;
  bool refittable = false;  // compute nothing with the contents of weights, so that a refit reaches all of them
  bool exact = false;       // no kernel with weaker rounding or NaN rules; CPU ranks have none
  // Of GPUs: operands of f32 products and convolutions may be rounded to TF32 (f32's range, 10 bits of mantissa), which tensor cores
  // multiply; sums, attention and all else stay f32. The engine keeps it. On CPUs it changes nothing, and a notice says so. Not together
  // with `exact`: Error(invalid_argument).
  bool tf32 = false;
  bool dependent_launch = true;  // of GPUs: kernels may start before their predecessors end, which changes no result
  bool timed = false;            // choose among kernels by running them; else by rule, the same on every machine, or as an engine has it
  std::vector<std::string> kernels;  // names of kernels to take wherever they can run, whatever their time
  std::string timing_cache;          // file of measured times, read and added to; empty: none
  int threads = 0;                   // per rank, for timing; 0: cores / ranks
  ProgressCallback progress = {};
};

// `path` is an ONNX file; "{rank}" in its name stands for one file per rank.
Engine build(const std::string& path, const BuildOptions& options = {});

struct TimingOptions {
  std::string timing_cache;  // file of measured times, read and added to, as that of a build; empty: none
  int threads = 0;           // per rank, for timing; 0: cores / ranks
  ProgressCallback progress = {};
};

// The engine with kernels and algorithms chosen by running them here, as a build that times does, where its own were chosen by rule: for
// one that was built on another machine, such as one without its GPU. All ranks get the same choice; where they communicate
// the slowest one's time counts. What was timed before is left alone, and so are kernels that were asked for by name, the program, the
// weights, where results lie in memory and what ranks send. Loads nothing. The result can be saved, and is not timed again then. Throws
// what opening the device throws, Error(invalid_argument) naming a cache file that is none, Error(mismatch) for an engine without weights
// or for another GPU.
Engine time_kernels(const Engine& engine, const TimingOptions& options = {});

// An engine file is loaded, and timed if `options` say so; any other model is built. Throws Error(mismatch) where `options` ask for another
// mesh than the engine's.
Engine open_model(const std::string& path, const BuildOptions& options = {}, const LoadOptions& load = {});

struct RefitReport {
  int refitted = 0;                 // weights that came from the files
  int kept = 0;                     // weights that stayed as they were
  std::vector<std::string> unused;  // tensors of the files that the engine has no use for
};

// Writes engine file `engine` with new weights to `out`, which may be the same file. `weights` are safetensors files (or the ONNX file
// itself) whose tensors have the names and full shapes of the imported model; the engine's recipes cut them for each rank.
// An engine without weights needs all of them. "{rank}" in names stands for one file per rank. Throws Error(mismatch) naming weights
// that are missing or of another dtype or shape, or if the engine was not built to be refitted.
RefitReport refit(const std::string& engine, const std::vector<std::string>& weights, const std::string& out,
                  const ProgressCallback& progress = {});

struct OutputCheck {
  std::string name;
  std::string reference;  // "unsharded random", "plain loops random", "case0", "case0.rank1"
  double absolute = 0;    // largest error; NaN where NaN positions differ
  double relative = 0;    // the same over the largest magnitude of the reference
  double tolerance = 0;
  bool passed = false;
  std::string note;  // "the reference is all zero", …
};

struct MeshCheck {
  std::string mesh;
  bool passed = false;
  std::string error;  // why nothing could be compared
  std::vector<OutputCheck> outputs;
  std::vector<CollectiveReport> collectives;
  std::vector<std::string> notices;
};

struct VerifyOptions {
  std::vector<std::string> meshes;
  int ranks = 0;       // instead of meshes: of files that another tool has sharded; others get the cheapest mesh
  std::string cases;   // recorded inputs and outputs; empty: random inputs
  BuildOptions build;  // if `timed`, for what is compared; kernels of the reference are chosen by rule
  TeamOptions team;
};

// Runs unsharded and on each mesh and compares; without a mesh, one rank against the recorded cases or, without those, against plain
// loops over the file's own graph. Throws Error where not even the unsharded model runs.
std::vector<MeshCheck> verify(const std::string& path, const VerifyOptions& options);

}  // namespace tandem
