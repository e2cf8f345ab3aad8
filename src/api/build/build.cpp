#include "tandem/build.h"

#include <charconv>

#include "api/build/compile.h"
#include "api/build/plain_run.h"
#include "api/run/engine_data.h"
#include "api/run/rank_path.h"
#include "build/build.h"
#include "core/check.h"
#include "import/onnx/import.h"

namespace tandem {
namespace {

std::int64_t whole_number(std::string_view text, std::string_view of) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0)
    fail(ErrorCode::invalid_argument, "'{}' in shape '{}' is no extent", text, of);
  return value;
}

std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t at = text.find(by);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

// "1x8" or "1x8:4x128:16x512".
std::vector<SymbolRange> parse_shape(std::string_view text) {
  const auto parts = split(text, ':');
  if (parts.size() != 1 && parts.size() != 3) fail(ErrorCode::invalid_argument, "shape '{}' is neither SHAPE nor MIN:OPT:MAX", text);
  std::vector<SymbolRange> ranges;
  for (std::size_t p = 0; p < 3; ++p) {
    const auto extents = split(parts[parts.size() == 1 ? 0 : p], 'x');
    ranges.resize(p == 0 ? extents.size() : ranges.size());
    if (extents.size() != ranges.size()) fail(ErrorCode::invalid_argument, "the parts of shape '{}' have different ranks", text);
    for (std::size_t i = 0; i < extents.size(); ++i)
      (p == 0 ? ranges[i].min : p == 1 ? ranges[i].opt : ranges[i].max) = whole_number(extents[i], text);
  }
  return ranges;
}

bool is_presharded(const Module& module) {
  for (const auto& node : module.main().nodes())
    if (communicates(*node)) return true;
  return false;
}

// What another tool has sharded runs on as many ranks as it was sharded for. `rank` whose file it is; -1: of all.
void check_ranks(const Module& module, int ranks, int rank) {
  for (const auto& node : module.main().nodes()) {
    if (!communicates(*node)) continue;
    const std::int64_t written = node->attributes.integer("num_ranks");
    const RankLists& groups = node->attributes.get<RankLists>("groups");
    if (groups.empty() && written != ranks)
      throw Error(ErrorCode::mismatch, fmt::format("it is for {} ranks, but the model is to run on {}", written, ranks), node->label(),
                  rank);
    for (const auto& group : groups)
      for (const std::int64_t member : group)
        if (member >= ranks)
          throw Error(ErrorCode::mismatch, fmt::format("its group names rank {}, but the model is to run on {} ranks", member, ranks),
                      node->label(), rank);
  }
}

// The program of a file: of rank `rank` where each has a file of its own, of all for -1.
Draft read_draft(const std::string& path, const BuildOptions& options, int rank) {
  const bool per_rank = rank >= 0;
  ImportOptions import;
  import.world_size = options.ranks > 0 ? options.ranks : 1;
  const std::vector<InputRanges> ranges = ranges_of_profiles(options);
  import.shapes = ranges.front();
  import.further_shapes.assign(ranges.begin() + 1, ranges.end());
  import.refittable = options.refittable;
  import.mesh = Mesh::parse(options.mesh);
  if (options.progress) options.progress("reading " + path, 0);
  Draft draft{.module = import_onnx(std::filesystem::path(path), import), .name = path};
  if (!per_rank && !is_presharded(*draft.module)) return draft;
  if (options.ranks < 1) fail(ErrorCode::invalid_argument, "{} is sharded already; say for how many ranks with --ranks", path);
  check_ranks(*draft.module, options.ranks, rank);
  draft.world = Mesh({{"rank", options.ranks}});
  return draft;
}

}  // namespace

std::vector<InputRanges> ranges_of_profiles(const BuildOptions& options) {
  InputRanges common;
  for (const auto& [name, text] : options.shapes) common[name] = parse_shape(text);
  if (options.profiles.empty()) return {common};
  std::vector<InputRanges> all;
  for (const auto& shapes : options.profiles) {
    if (shapes.empty()) fail(ErrorCode::invalid_argument, "optimization profile {} gives no input a shape", all.size());
    InputRanges ranges = common;
    for (const auto& [name, text] : shapes) ranges[name] = parse_shape(text);
    all.push_back(std::move(ranges));
  }
  return all;
}

Engine build(const std::string& path, const BuildOptions& options) {
  const bool per_rank = is_per_rank(path);
  if (per_rank && options.ranks < 1) fail(ErrorCode::invalid_argument, "{} names a file per rank; say how many with --ranks", path);
  std::vector<Draft> drafts;
  for (int rank = 0; rank < (per_rank ? options.ranks : 1); ++rank)
    drafts.push_back(read_draft(path_of_rank(path, rank), options, per_rank ? rank : -1));
  return finish(std::move(drafts), options);
}

Engine open_model(const std::string& path, const BuildOptions& options, const LoadOptions& load) {
  if (!is_engine_file(path)) return build(path, options);
  Engine engine = load_engine(path, load);
  if (!options.mesh.empty() && Mesh::parse(options.mesh) != engine.data().plan().mesh)
    fail(ErrorCode::mismatch, "{} is built for mesh {}, asked for is {}", path, engine.mesh().empty() ? "of one rank" : engine.mesh(),
         options.mesh);
  if (!options.device.empty() && options.device != engine.data().plan().device)
    fail(ErrorCode::mismatch, "{} is built for device {}, asked for is {}", path, engine.data().plan().device, options.device);
  if (options.ranks > 0 && options.ranks != engine.ranks())
    fail(ErrorCode::mismatch, "{} is built for {} ranks, asked for are {}", path, engine.ranks(), options.ranks);
  if (!options.timed) return engine;
  return time_kernels(engine, {.timing_cache = options.timing_cache, .threads = options.threads, .progress = options.progress});
}

}  // namespace tandem
