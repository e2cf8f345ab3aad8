// Engines to files and back.
#include <algorithm>
#include <fstream>

#include "api/run/engine_data.h"
#include "api/run/rank_path.h"
#include "core/check.h"
#include "core/mapped_file.h"
#include "core/stored_bytes.h"
#include "plan/engine_file.h"
#include "team/engine_image.h"

namespace tandem {
namespace {

std::size_t stored_bytes(const Plan& plan, bool weights) {
  std::size_t total = 0;
  for (const PlanWeight& w : plan.weights) {
    if (!weights && !w.frozen) continue;
    std::size_t slices = 1;
    for (const std::string& axis : w.axes) slices *= static_cast<std::size_t>(plan.mesh.size(axis));
    total += slices * stored_bytes(w.dtype, element_count(w.shape));
  }
  return total;
}

// `rank`: whose weights, where every rank has its own file; else -1.
void save_one(const std::string& path, const Plan& plan, const WeightSource& weights, int rank, const SaveOptions& options) {
  const std::string what = "writing " + path;
  const double total = static_cast<double>(std::max<std::size_t>(1, stored_bytes(plan, options.weights)));
  std::size_t written = 0;
  write_engine(path, plan,
               [&](const PlanWeight& weight, int slice_rank) {
                 if (options.progress) options.progress(what, static_cast<double>(written) / total);
                 Tensor slice = weights(weight, rank >= 0 ? rank : slice_rank);
                 written += slice.size_bytes();
                 return slice;
               },
               {.weights = options.weights});  // no report follows: the file is there, and nobody may stop that any more
}

// Files of one set must be of one world.
void require_same_world(const EngineFile& first, const EngineFile& other, const std::string& path) {
  if (first.plan().world_size() != other.plan().world_size())
    fail(ErrorCode::mismatch, "{} is for {} ranks, the file of rank 0 for {}", path, other.plan().world_size(), first.plan().world_size());
}

}  // namespace

bool Engine::has_weights() const { return data_->has_weights; }

void Engine::save(const std::string& path, const SaveOptions& options) const {
  if (options.weights && !has_weights()) fail(ErrorCode::mismatch, "the engine has no weights to write to {}", path);
  const auto& plans = data_->plans;
  if (plans.size() == 1 && is_per_rank(path))
    fail(ErrorCode::invalid_argument, "all ranks share one engine file; leave {} out of {}", kRankWord, path);
  if (plans.size() > 1 && !is_per_rank(path))
    fail(ErrorCode::invalid_argument, "every rank has a program of its own; put {} into {}", kRankWord, path);
  if (plans.size() == 1) return save_one(path, *plans[0], data_->weights, -1, options);
  for (std::size_t r = 0; r < plans.size(); ++r)
    save_one(path_of_rank(path, static_cast<int>(r)), *plans[r], data_->weights, static_cast<int>(r), options);
}

Engine load_engine(const std::string& path, const LoadOptions& options) {
  auto data = std::make_shared<EngineData>();
  data->path = path;
  auto files = std::make_shared<std::vector<EngineFile>>();
  files->push_back(open_engine_file(path_of_rank(path, 0), options.strict));
  const int world = files->at(0).plan().world_size();
  for (int rank = 1; is_per_rank(path) && rank < world; ++rank) {
    files->push_back(open_engine_file(path_of_rank(path, rank), options.strict));
    require_same_world(files->at(0), files->back(), path_of_rank(path, rank));
  }
  for (const EngineFile& file : *files) {
    data->plans.push_back(file.shared_plan());
    data->has_weights = data->has_weights && (file.has_weights() || std::ranges::all_of(file.plan().weights, &PlanWeight::frozen));
  }
  data->weights = [files](const PlanWeight& weight, int rank) {
    return files->at(files->size() == 1 ? 0 : static_cast<std::size_t>(rank)).map_weight(weight, rank);
  };
  return Engine(std::move(data));
}

Array Engine::to_bytes(const SaveOptions& options) const {
  if (options.weights && !has_weights()) fail(ErrorCode::mismatch, "the engine has no weights to write");
  if (data_->plans.size() > 1)
    fail(ErrorCode::unsupported, "every rank has a program of its own: save() to a path with {} in it", kRankWord);
  const SharedMemory image = make_engine_image(*data_->plans[0], data_->weights, -1, {.weights = options.weights});
  const auto file = MappedFile::open(fmt::format("/proc/self/fd/{}", image.fd()));
  return {DType::u8, {static_cast<std::int64_t>(file->bytes().size())}, {file, file->bytes().data()}};
}

Engine load_engine(const Array& bytes, const LoadOptions& options) {
  constexpr std::uintptr_t kAlignment = 64;  // of weights in memory
  Tensor memory = to_tensor(bytes);
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % kAlignment != 0) {
    Tensor copy(DType::u8, {static_cast<std::int64_t>(memory.size_bytes())});
    std::ranges::copy(memory.bytes(), copy.mutable_data());
    memory = copy;
  }
  const auto file = std::make_shared<EngineFile>(parse_engine_file(memory, options.strict));
  auto data = std::make_shared<EngineData>();
  data->plans.push_back(file->shared_plan());
  data->has_weights = file->has_weights() || std::ranges::all_of(file->plan().weights, &PlanWeight::frozen);
  data->weights = [file](const PlanWeight& weight, int rank) { return file->map_weight(weight, rank); };
  return Engine(std::move(data));
}

bool is_engine_file(const std::string& path) {
  std::ifstream file(path_of_rank(path, 0), std::ios::binary);
  std::uint64_t length = 0;
  char first = 0;
  file.read(reinterpret_cast<char*>(&length), sizeof length).get(first);
  return file && first == '{' && length < 100'000'000;
}

}  // namespace tandem
