// Plan: a compiled program for all ranks, as plain data. One Plan per engine file; the same on every rank but for
// coordinate symbols (@tp), which are bound when a Context is made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace tandem {

// A value of the plan: an input, a weight, or a result of a step.
struct PlanValue {
  std::string name;
  enum class Kind : std::uint8_t { input, weight, temporary } kind = Kind::temporary;
  Type type;               // local: what one rank holds
  int weight = -1;         // index into Plan::weights
  int alias_of = -1;       // lies in the memory of this value (Reshape, in-place steps); -1: its own
  int first_step = -1;     // lifetime of a temporary: written first here …
  int last_step = -1;      // … read last here; outputs live to the end
  Sharding sharding = {};  // what passes made of it, to look at; no run reads it
};

// A kernel that was considered for a step.
struct Candidate {
  std::string kernel;
  double microseconds = 0;  // measured; 0: not timed
  std::string reason;       // why it cannot run, or could not be timed; empty if it can
  bool operator==(const Candidate&) const = default;
};

struct Step {
  std::string kernel;  // KernelDef::name
  std::string op;      // OpDef::name
  std::string node;    // name in the model, for messages and traces
  Attributes attributes;
  std::vector<int> operands;  // indices into values; -1: absent
  std::vector<int> results;
  std::string note;         // why the step is here, for `inspect`
  double microseconds = 0;  // measured at build for the opt shapes; 0: by rule
  bool communicates = false;
  std::vector<Candidate> candidates = {};  // the kernels considered, where there was more than one
  // What it waits for: all of the step before it; or, if it starts early, only for that step to let it begin, until its kernel waits.
  bool starts_early = false;
  std::vector<int> resident = {};  // of a step that starts early: the operands (positions) that its kernel may read before it waits
  std::string algorithm = {};      // of those of the kernel's library, the best at the opt shapes; empty: the library decides
};

// An input or output as the caller sees it.
struct Binding {
  std::string name;
  int value = -1;
  Type type;  // global
  Sharding sharding;
};

struct Program {
  std::string name;
  std::vector<PlanValue> values;
  std::vector<Step> steps;
  std::vector<Binding> inputs;
  std::vector<Binding> outputs;
  std::vector<Profile> profiles;
  std::vector<Constraint> constraints;
};

struct PlanWeight {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;                    // local
  RecipePtr recipe;               // over sources of the imported model; holds @axis symbols where sharded
  std::vector<std::string> axes;  // mesh axes its content depends on, in mesh order: one tensor per distinct slice
  bool frozen = false;
};

// One collective as `inspect` prints it and as fingerprints compare it.
struct CollectiveUse {
  int program = 0;
  int step = 0;
  std::string operation;  // all_reduce, …; append; attention for an exchange inside Attention
  std::string reduce;
  DType dtype = DType::f32;
  Dim count;         // elements of the local input
  std::string axis;  // mesh axis, or empty
  RankLists groups;  // explicit rank lists; empty with an empty axis: the whole world
  int root = -1;
  Dim bytes;  // sent by each rank
};

// What a text of KernelDef::texts became for one kind of GPU.
struct StoredCode {
  std::string text;    // text_key() of it
  int sm = 0;          // 90 for compute capability 9.0
  std::string digest;  // of the bytes
  std::int64_t size = 0;
  std::shared_ptr<const std::vector<std::byte>> bytes = {};  // a tensor of the engine file, not part of its JSON
  bool operator==(const StoredCode&) const = default;
};

StoredCode stored_code(std::string text, int sm, std::shared_ptr<const std::vector<std::byte>> bytes);

struct Plan {
  int format = 1;
  std::string tool;  // "tandem 0.1.0"
  std::string device = "cpu";
  std::vector<std::string> features;  // CPU features or SM the chosen kernels need
  Mesh mesh;
  std::string strategy;  // what was asked for, like "tp=2"
  bool refittable = false;
  bool exact = false;             // no kernel with weaker rounding or NaN rules may run its steps
  bool tf32 = false;              // operands of f32 products and convolutions may be rounded to TF32; of GPUs only
  std::vector<Program> programs;  // the one that runs, for each optimization profile, under one name; then others
  std::vector<PlanWeight> weights;
  std::vector<CollectiveUse> collectives;
  std::vector<std::string> notices;
  std::vector<StoredCode> code;
  // Library → version, and whatever else the choices hang on: compiler, commit, vectors, options, and the cpu where kernels were timed.
  std::map<std::string, std::string> built_with;

  int world_size() const { return mesh.size(); }
  // Program p is for profile p. All have the same inputs and outputs, as the same values.
  std::size_t profiles() const;
};

// @axis → position of `rank`, for every axis of the mesh.
SymbolValues coordinates(const Mesh& mesh, int rank);

// The name under which an engine file stores the slice of a weight at these mesh coordinates: "w@tp=0".
std::string slice_name(const PlanWeight& weight, const Mesh& mesh, int rank);

// JSON text and back. Reading trusts nothing: every index, name and count is checked; Error(invalid_engine).
std::string to_json(const Plan& plan);
Plan plan_from_json(std::string_view text, const OpSet& ops);

// 64-bit digest of what all ranks must agree on: programs, mesh, weights' recipes.
std::uint64_t digest(const Plan& plan);
// The same of what the members of a group must agree on where their plans differ: what they exchange, in which order.
std::uint64_t digest(const std::vector<CollectiveUse>& uses);

}  // namespace tandem
