#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <set>

#include "api/build/compile.h"
#include "api/build/plain_run.h"
#include "api/run/engine_data.h"
#include "core/check.h"
#include "tandem/build.h"

namespace tandem {
namespace {

struct Case {
  std::string name;
  RankArrays inputs, outputs;  // one per rank where recorded per rank; an absent one has no data
};

// `build` says in which type was computed and how weights were quantised. One weight is off by at most 1/254 of the largest of its column
// in int8, by 1/14 of the largest of its block in int4, by 1/16 of itself in fp8; sums of many are off by less. TF32 leaves operands of
// products as many digits as f16 has.
double default_tolerance(DType dtype, const BuildOptions& build, bool tf32) {
  if (build.weights == "int4") return 2.5e-1;
  if (build.weights == "fp8") return 1e-1;
  if (build.weights == "int8") return 5e-2;
  const std::string& computed = build.dtype;
  if (dtype == DType::bf16 || computed == "bf16") return 5e-2;
  return dtype == DType::f16 || computed == "f16" || (tf32 && dtype == DType::f32) ? 1e-2 : 1e-4;
}

// "case0.input.x", "case0.rank1.output.y"
void add_recorded(std::map<std::string, Case>& cases, const std::string& key, const Array& array, int ranks) {
  const std::size_t dot = key.find('.');
  if (!key.starts_with("case") || dot == std::string::npos) fail(ErrorCode::invalid_argument, "'{}' is no name of a recorded case", key);
  Case& c = cases[key.substr(0, dot)];
  c.name = key.substr(0, dot);
  std::string rest = key.substr(dot + 1);
  int rank = -1;
  if (rest.starts_with("rank")) {
    const std::size_t next = rest.find('.');
    rank = std::atoi(rest.substr(4, next == std::string::npos ? 0 : next - 4).c_str());
    if (next == std::string::npos || rank < 0 || rank >= std::max(ranks, 1))
      fail(ErrorCode::mismatch, "the cases hold '{}', but there are {} ranks", key, std::max(ranks, 1));
    rest = rest.substr(next + 1);
  }
  const bool input = rest.starts_with("input.");
  if (!input && !rest.starts_with("output.")) fail(ErrorCode::invalid_argument, "'{}' is neither an input nor an output", key);
  auto& list = (input ? c.inputs : c.outputs)[rest.substr(input ? 6 : 7)];
  list.resize(rank < 0 ? 1 : static_cast<std::size_t>(std::max(ranks, 1)));
  list[rank < 0 ? 0 : static_cast<std::size_t>(rank)] = array;
}

std::vector<Case> read_cases(const std::string& path, int ranks, std::map<std::string, std::string>& metadata) {
  std::map<std::string, Case> cases;
  for (const auto& [key, array] : read_arrays(path, &metadata)) add_recorded(cases, key, array, ranks);
  if (cases.empty()) fail(ErrorCode::invalid_argument, "{} holds no cases", path);
  std::vector<Case> list;
  for (auto& [name, c] : cases) list.push_back(std::move(c));
  return list;
}

OutputCheck compare(const std::string& name, const std::string& reference, const Array& want_array, const Array& got_array,
                    double tolerance) {
  OutputCheck check{.name = name, .reference = reference, .tolerance = tolerance};
  const Tensor want = to_tensor(want_array), got = to_tensor(got_array);
  if (want.shape() != got.shape()) {
    check.absolute = check.relative = std::numeric_limits<double>::infinity();
    check.note = fmt::format("shape {} instead of {}", to_string(got.shape()), to_string(want.shape()));
    return check;
  }
  double largest = 0;
  bool same_nan = true, constant = true;
  for (std::int64_t i = 0; i < want.count(); ++i) {
    const double a = want.at(i), b = got.at(i);
    same_nan = same_nan && std::isnan(a) == std::isnan(b);
    constant = constant && a == want.at(0);
    if (std::isnan(a) || std::isnan(b)) continue;
    if (std::isfinite(a)) largest = std::max(largest, std::fabs(a));
    if (a != b) check.absolute = std::max(check.absolute, std::fabs(a - b));
  }
  check.relative = largest > 0 ? check.absolute / largest : check.absolute;
  check.passed = same_nan && check.relative <= tolerance;
  if (!same_nan) {
    check.absolute = check.relative = std::nan("");
    check.note = "NaN positions differ";
  } else if (constant && want.count() > 1) {
    check.note = largest == 0 ? "the reference is all zero" : "the reference is constant";
  }
  return check;
}

void tell(const VerifyOptions& options, const std::string& what, double done) {
  if (options.build.progress) options.build.progress(what, done);
}

// Of outputs of a type, from an engine whose products may round to TF32 or may not.
using Tolerance = std::function<double(DType, bool tf32)>;

void compare_all(MeshCheck& into, const std::string& reference, const RankArrays& want, const RankArrays& got, const Tolerance& tolerance,
                 bool tf32) {
  for (const auto& [name, list] : want) {
    const auto found = got.find(name);
    for (std::size_t r = 0; r < list.size(); ++r) {
      if (!list[r].data) continue;
      const std::string label = list.size() > 1 ? fmt::format("{}.rank{}", reference, r) : reference;
      if (found == got.end()) {
        into.outputs.push_back({.name = name, .reference = label, .note = "the model has no such output"});
        continue;
      }
      const Array& value = found->second[found->second.size() == 1 ? 0 : r];
      into.outputs.push_back(compare(name, label, list[r], value, tolerance(list[r].dtype, tf32)));
    }
  }
}

MeshCheck check_mesh(const std::string& path, const VerifyOptions& options, const std::string& mesh, const std::vector<Case>& cases,
                     const std::vector<RankArrays>& unsharded, const std::string& reference, const Tolerance& tolerance) {
  MeshCheck result;
  result.mesh = mesh;
  try {
    BuildOptions build_options = options.build;
    build_options.mesh = mesh;
    if (options.ranks > 0) {
      build_options.mesh.clear();
      build_options.ranks = options.ranks;
      result.mesh = fmt::format("ranks={}", options.ranks);
    }
    const Engine engine = open_model(path, build_options);
    if (is_engine_file(path)) result.mesh = engine.mesh();
    result.collectives = engine.collectives();
    result.notices = engine.notices();
    const bool tf32 = engine.data().plan().tf32;
    Model model(engine, options.team);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      tell(options, "comparing " + (result.mesh.empty() ? path : result.mesh), static_cast<double>(i) / static_cast<double>(cases.size()));
      const RankArrays got = model.run(cases[i].inputs);
      if (i < unsharded.size()) compare_all(result, reference + " " + cases[i].name, unsharded[i], got, tolerance, tf32);
      compare_all(result, cases[i].name, cases[i].outputs, got, tolerance, tf32);
    }
    result.notices.insert(result.notices.end(), model.notices().begin(), model.notices().end());
    result.passed = !result.outputs.empty();
    bool told = false;  // something other than zeros was compared
    for (const OutputCheck& output : result.outputs) {
      result.passed = result.passed && output.passed;
      told = told || output.note.empty();
    }
    if (result.passed && !told) {
      result.passed = false;
      result.error = "every reference is zero or constant, so nothing was shown";
    }
  } catch (const Error& error) {
    if (error.code() == ErrorCode::interrupted) throw;
    result.error = error.what();
  }
  return result;
}

// The cases file's own tolerance; 0 if it names none.
double tolerance_of(const std::map<std::string, std::string>& metadata) {
  const auto found = metadata.find("tolerance");
  if (found == metadata.end()) return 0;
  char* end = nullptr;
  const double value = std::strtod(found->second.c_str(), &end);
  if (end == found->second.c_str() || *end != '\0' || !(value >= 0))
    fail(ErrorCode::invalid_argument, "the cases' tolerance '{}' is no number", found->second);
  return value;
}

// A number of ranks for a model that is not sharded yet means the mesh that `auto` chooses.
void choose_mesh_of(const std::string& path, VerifyOptions& options) {
  BuildOptions build_options = options.build;
  build_options.ranks = options.ranks;
  build_options.timed = false;  // the mesh does not hang on it
  const Engine engine = build(path, build_options);
  const auto per_rank = [](const Port& port) { return port.per_rank; };
  if (std::ranges::any_of(engine.inputs(), per_rank) || std::ranges::any_of(engine.outputs(), per_rank)) return;
  options.meshes = {engine.mesh()};
  options.ranks = 0;
}

}  // namespace

std::vector<MeshCheck> verify(const std::string& path, const VerifyOptions& asked) {
  require_one_precision(asked.build);
  VerifyOptions options = asked;
  const bool built = is_engine_file(path);
  if (options.ranks > 0 && options.meshes.empty() && !built) choose_mesh_of(path, options);
  std::map<std::string, std::string> metadata;
  std::vector<Case> cases;
  if (!options.cases.empty()) cases = read_cases(options.cases, built ? load_engine(path).ranks() : options.ranks, metadata);
  const double recorded_tolerance = tolerance_of(metadata);
  const Tolerance tolerance = [&](DType dtype, bool tf32) {
    const double usual = default_tolerance(dtype, options.build, tf32);
    if (recorded_tolerance <= 0) return usual;
    const bool own = options.build.dtype.empty() && options.build.weights.empty() && !tf32;
    return own ? recorded_tolerance : std::max(recorded_tolerance, usual);  // the cases tell of the file's own types
  };
  std::vector<std::string> meshes = options.meshes;
  if (meshes.empty()) meshes.emplace_back();
  std::string reference = "unsharded";
  std::vector<RankArrays> unsharded;
  if (options.ranks == 0 && !built) {
    BuildOptions whole = options.build;
    whole.weights.clear();  // what is checked is compared with the weights of the file
    whole.timed = false;    // and its kernels with those of the rule
    whole.tf32 = false;     // and its products with those of f32
    const Engine engine = build(path, whole);
    const bool recorded = !cases.empty();
    if (!recorded) {
      for (int profile = 0; profile < engine.profiles(); ++profile) {
        Case random{.name = profile == 0 ? "random" : fmt::format("random, profile {}", profile)};
        for (auto& [name, array] : engine.random_inputs(0, profile)) random.inputs[name] = {array};
        cases.push_back(std::move(random));
      }
    }
    if (std::ranges::any_of(meshes, [](const std::string& mesh) { return !mesh.empty(); })) {
      Model model(engine, options.team);
      for (const Case& c : cases) {
        tell(options, "running unsharded", static_cast<double>(unsharded.size()) / static_cast<double>(cases.size()));
        unsharded.push_back(model.run(c.inputs));
      }
    } else if (!recorded) {  // against itself it would show nothing
      reference = "plain loops";
      tell(options, "computing with plain loops", 0);
      for (int profile = 0; profile < engine.profiles(); ++profile) {
        unsharded.emplace_back();
        for (const auto& [name, array] :
             run_plainly(path, options.build, engine.random_inputs(0, profile), static_cast<std::size_t>(profile)))
          unsharded.back()[name] = {array};
      }
    }
  } else if (cases.empty()) {
    fail(ErrorCode::invalid_argument, "{} is compared with recorded outputs; give them with --cases",
         built ? "an engine" : "a model that is already sharded");
  }
  std::vector<MeshCheck> results;
  for (const std::string& mesh : meshes) results.push_back(check_mesh(path, options, mesh, cases, unsharded, reference, tolerance));
  return results;
}

}  // namespace tandem
