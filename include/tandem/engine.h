// Arrays in files, and engines: a model compiled for all its ranks. Public.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tandem/error.h"
#include "tandem/types.h"

namespace tandem {

// A dense row-major array on the host; copies share the memory.
struct Array {
  DType dtype = DType::f32;
  Shape shape;
  std::shared_ptr<const std::byte> data;
  std::size_t size_bytes() const;
};
using Arrays = std::map<std::string, Array>;
// One array for all ranks, or one per rank where each rank has its own.
using RankArrays = std::map<std::string, std::vector<Array>>;

// A .safetensors file with its metadata, or one array of a .npy file. Throw Error(io) or Error(invalid_argument) naming the file.
Arrays read_arrays(const std::string& path, std::map<std::string, std::string>* metadata = nullptr);
void write_arrays(const std::string& path, const Arrays& arrays);
Array read_npy(const std::string& path);

// An input or output as the caller sees it; extents are numbers or expressions over the dynamic dimensions.
struct Port {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::string> shape;
  std::string sharding;
  bool per_rank = false;                 // each rank has its own
  std::vector<std::string> local_shape;  // of what one rank holds
  std::vector<Shape> local_range;        // the same at the smallest, typical and largest values of the profile's dynamic dimensions
  std::vector<Shape> range;              // of the whole, likewise
};

struct CollectiveReport {
  std::string operation, reduce, axis, node, count, bytes, note;
};

// Told what long work is doing and how much of that is done (0 … 1). May throw to stop it: then nothing is left behind.
using ProgressCallback = std::function<void(std::string_view what, double done)>;

struct SaveOptions {
  bool weights = true;  // false: only what no checkpoint can bring; such an engine runs once it was refitted
  ProgressCallback progress = {};
};

// What the weights of a rank take of its GPU, in bytes.
struct WeightMemory {
  std::size_t bytes = 0;           // of all of them: with a budget of so much or more, and without one, nothing is streamed
  std::size_t least_budget = 0;    // the smallest with which it runs
  std::size_t ring_bytes = 0;      // of the budget asked about: the room in which streamed weights arrive, once for each context
  std::size_t streamed_bytes = 0;  // of weights that each run copies to the GPU again
};

struct EngineData;

// Immutable; copies share it.
class Engine {
 public:
  explicit Engine(std::shared_ptr<const EngineData> data) : data_(std::move(data)) {}
  int ranks() const;
  std::string device() const;  // "cpu" or "cuda": what its ranks run on
  std::string mesh() const;
  // How many optimization profiles it has: ranges of shapes, each with a program of its own. One at least.
  int profiles() const;
  // Throw Error(invalid_argument) for a profile that is none.
  std::vector<Port> inputs(int profile = 0) const;
  std::vector<Port> outputs(int profile = 0) const;
  std::vector<CollectiveReport> collectives() const;
  std::vector<std::string> notices() const;
  // False for an engine without its weights: it can be inspected and refitted, not run.
  bool has_weights() const;
  // Writes the engine file, which appears whole or not at all. "{rank}" in `path` gives one file per rank: needed where each rank has
  // a program of its own, an error elsewhere.
  void save(const std::string& path, const SaveOptions& options = {}) const;
  // What the file would hold, as bytes (u8) in memory; reports no progress. Error(unsupported) where each rank has its own program.
  Array to_bytes(const SaveOptions& options = {}) const;
  // Whether a refit can replace all its weights.
  bool refittable() const;
  // Streams besides the one given that a context of a rank uses, at most; see Context::set_auxiliary_streams().
  int auxiliary_streams() const;
  // Of activations and workspace, on the rank that takes most, for the typical shapes of the profile that takes most.
  std::size_t activation_bytes() const;
  // With a weight budget (ContextOptions::weight_budget_bytes), or without. Loads nothing, but opens the rank's GPU. Throws what that
  // throws, Error(unsupported) for an engine of CPU ranks, Error(invalid_argument) for a budget that is too small.
  WeightMemory weight_memory(std::optional<std::size_t> budget = {}, int rank = 0) const;
  // What is free on the rank's GPU at present, without room for the activations of the typical shapes and a reserve; no less than the least
  // budget and no more than all weights. Throws as weight_memory() does.
  std::size_t automatic_weight_budget(int rank = 0) const;
  // Everything about it as JSON: mesh, ports, values with how they lie over the mesh, steps by layer, collectives with bytes, weights,
  // memory per rank and step. Bytes are for the sizes in `at`, by symbol, and for typical ones of the symbols that it does not name; steps
  // are those of the optimization profile that fits these sizes best. Throws Error(invalid_argument) for a symbol that the engine does not
  // have, or sizes outside of all profiles.
  std::string describe(const std::map<std::string, std::int64_t>& at = {}) const;
  // Arrays of the declared shapes: symbols take their `opt` values in the profile; integers are 0 and 1, floats lie in -1 … 1. The same for
  // one seed.
  Arrays random_inputs(unsigned seed = 0, int profile = 0) const;
  const EngineData& data() const { return *data_; }

 private:
  std::shared_ptr<const EngineData> data_;
};

struct LoadOptions {
  // Refuse an engine that was built with other libraries than this program has, instead of choosing the affected steps again.
  bool strict = false;
};

// Opens an engine file ("{rank}" in its name: one per rank). Cheap: each rank maps the slices of its weights when it starts.
// Throws Error(invalid_engine) saying what was expected and what was found, Error(mismatch) for files of different worlds, Error(io).
Engine load_engine(const std::string& path, const LoadOptions& options = {});
// From the bytes of such a file, which the engine keeps alive; copied first unless they are aligned to 64 bytes.
Engine load_engine(const Array& bytes, const LoadOptions& options = {});
// Whether this is a file that starts as engine files do. Never throws.
bool is_engine_file(const std::string& path);

}  // namespace tandem
