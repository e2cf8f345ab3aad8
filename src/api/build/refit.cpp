// New weights for an engine file.
#include <algorithm>
#include <set>

#include "api/run/rank_path.h"
#include "core/check.h"
#include "core/safetensors.h"
#include "import/onnx/import.h"
#include "ops/ops.h"
#include "plan/engine_file.h"
#include "tandem/build.h"

namespace tandem {
namespace {

// The tensors of all weight files by name.
class NewWeights {
 public:
  explicit NewWeights(const std::vector<std::string>& paths) {
    for (const std::string& path : paths) {
      if (path.ends_with(".onnx")) add_model(path);
      else add_checkpoint(path);
    }
    if (tensors_.empty()) fail(ErrorCode::invalid_argument, "the weight files hold no tensors");
  }

  bool has(const std::string& name) const { return tensors_.contains(name); }
  Tensor at(const std::string& name) const { return tensors_.at(name); }
  const std::map<std::string, Tensor>& all() const { return tensors_; }

 private:
  void add(const std::string& name, Tensor tensor, const std::string& path) {
    if (!tensors_.emplace(name, std::move(tensor)).second)
      fail(ErrorCode::invalid_argument, "tensor '{}' of {} is in another weight file too", name, path);
  }
  void add_checkpoint(const std::string& path) {
    const Safetensors file = Safetensors::open(path);
    for (const auto& [name, entry] : file.entries()) add(name, file.tensor(name), path);
  }
  void add_model(const std::string& path) {
    ImportOptions options;
    options.refittable = true;
    const auto module = import_onnx(std::filesystem::path(path), options);
    for (const auto& [name, tensor] : module->sources()) add(name, tensor, path);
  }

  std::map<std::string, Tensor> tensors_;
};

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 5;
  const std::vector<std::string> first(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, names.size())));
  return fmt::format("{}{}", fmt::join(first, ", "), names.size() > kShown ? fmt::format(" and {} more", names.size() - kShown) : "");
}

// Which weights are new; every complaint comes before anything is written.
std::set<const PlanWeight*> choose(const EngineFile& engine, const NewWeights& given, RefitReport& report) {
  std::set<const PlanWeight*> fresh;
  std::set<std::string> used;
  std::vector<std::string> missing;
  for (const PlanWeight& weight : engine.plan().weights) {
    std::vector<std::string> sources, absent;
    if (!weight.frozen) weight.recipe->collect_sources(sources);
    std::ranges::copy_if(sources, std::back_inserter(absent), [&](const std::string& s) { return !given.has(s); });
    if (!sources.empty() && absent.empty()) {
      fresh.insert(&weight);
      used.insert(sources.begin(), sources.end());
    } else if (absent.size() < sources.size()) {
      fail(ErrorCode::mismatch, "weight '{}' is made of several tensors, of which {} are not given", weight.name, listed(absent));
    } else if (!weight.frozen && !engine.has_weights()) {
      missing.insert(missing.end(), absent.begin(), absent.end());
    }
  }
  std::ranges::sort(missing);
  missing.erase(std::unique(missing.begin(), missing.end()), missing.end());
  if (!missing.empty()) fail(ErrorCode::mismatch, "the engine has no weights, and the files lack {}", listed(missing));
  if (fresh.empty()) fail(ErrorCode::mismatch, "none of the {} tensors given is a weight of the engine", given.all().size());
  for (const auto& [name, tensor] : given.all())
    if (!used.contains(name)) report.unused.push_back(name);
  report.refitted += static_cast<int>(fresh.size());
  report.kept += static_cast<int>(engine.plan().weights.size() - fresh.size());
  return fresh;
}

void refit_one(const std::string& path, const std::vector<std::string>& weights, const std::string& out, const ProgressCallback& progress,
               RefitReport& report) {
  const EngineFile engine = EngineFile::open(path, all_ops());
  if (!engine.plan().refittable)
    fail(ErrorCode::mismatch, "{} computed with the contents of weights when it was built; build it with --refittable", path);
  const NewWeights given(weights);
  const std::set<const PlanWeight*> fresh = choose(engine, given, report);
  std::size_t done = 0;
  write_engine(out, engine.plan(), [&](const PlanWeight& weight, int rank) {
    if (progress)
      progress("writing " + out, std::min(1.0, static_cast<double>(done++) / static_cast<double>(engine.plan().weights.size())));
    if (!fresh.contains(&weight)) return engine.map_weight(weight, rank);
    return run_recipe(
        *weight.recipe, [&](const std::string& name) { return given.at(name); }, coordinates(engine.plan().mesh, rank));
  });
}

}  // namespace

RefitReport refit(const std::string& engine, const std::vector<std::string>& weights, const std::string& out,
                  const ProgressCallback& progress) {
  RefitReport report;
  if (is_per_rank(engine) != is_per_rank(out))
    fail(ErrorCode::invalid_argument, "{} must stand in the names of both engines or of neither", kRankWord);
  const int files = is_per_rank(engine) ? load_engine(engine).ranks() : 1;
  for (int rank = 0; rank < files; ++rank) {
    std::vector<std::string> of_rank;
    for (const std::string& path : weights) of_rank.push_back(path_of_rank(path, rank));
    RefitReport one;
    refit_one(path_of_rank(engine, rank), of_rank, path_of_rank(out, rank), progress, one);
    report.refitted += one.refitted;
    report.kept += one.kept;
    if (rank == 0) report.unused = std::move(one.unused);
  }
  return report;
}

}  // namespace tandem
