#include <algorithm>
#include <set>

#include "core/atomic_file.h"
#include "core/check.h"
#include "core/digest.h"
#include "graph/text_values.h"
#include "plan/engine_file.h"
#include "plan/engine_layout.h"
#include "plan/plan_check.h"

namespace tandem {
namespace {

// One tensor of the file: the plan, a pad, code, or the slice of a weight as `rank` has it.
struct Entry {
  SafetensorsItem item;
  const PlanWeight* weight = nullptr;
  int rank = 0;
  std::int64_t size = 0;
  const StoredCode* code = nullptr;
};

class Layout {
 public:
  Layout(const Plan& plan, std::int64_t plan_bytes, const WriteOptions& options) {
    add({{std::string(kPlanTensor), DType::u8, {plan_bytes}}, nullptr, 0, plan_bytes});
    for (std::size_t i = 0; i < plan.code.size(); ++i) {
      const StoredCode& code = plan.code[i];
      check(code.bytes && std::cmp_equal(code.bytes->size(), code.size), "the code of a plan that is written is there");
      pad_to(kSliceAlignment);
      add({{code_tensor(i), DType::u8, {code.size}}, nullptr, 0, code.size, &code});
    }
    std::vector<std::pair<int, const PlanWeight*>> slices;
    for (const PlanWeight& w : plan.weights)
      if (options.weights || w.frozen)
        for (const int rank : slice_ranks(w, plan.mesh)) slices.emplace_back(rank, &w);
    // Rank by rank, so that what a rank reads lies close together.
    std::ranges::stable_sort(slices, {}, [](const auto& s) { return s.first; });
    for (const auto& [rank, weight] : slices) add_slice(slice_name(*weight, plan.mesh, rank), *weight, rank);
  }

  const std::vector<Entry>& entries() const { return entries_; }
  std::vector<SafetensorsItem> items() const {
    std::vector<SafetensorsItem> items;
    for (const Entry& e : entries_) items.push_back(e.item);
    return items;
  }

 private:
  void add(Entry entry) {
    at_ += entry.size;
    entries_.push_back(std::move(entry));
  }

  void pad_to(std::int64_t alignment) {
    const std::int64_t gap = round_up(at_, alignment) - at_;
    if (gap > 0) add({{fmt::format("{}{}", kPadPrefix, pads_++), DType::u8, {gap}}, nullptr, 0, gap});
  }

  void add_slice(const std::string& name, const PlanWeight& w, int rank) {
    if (name.starts_with(kOwnPrefix) || name.starts_with(kPadPrefix) || name == "__metadata__")
      fail(ErrorCode::invalid_argument, "no weight can be named '{}' in an engine file", name);
    const auto [dtype, shape] = stored_type(w);
    const auto size = static_cast<std::int64_t>(bytes(dtype, element_count(shape)));
    pad_to(slice_alignment(size));
    if (!names_.insert(name).second) fail(ErrorCode::invalid_argument, "two slices of weights are named '{}'", name);
    add({{name, dtype, shape}, &w, rank, size});
  }

  std::vector<Entry> entries_;
  std::set<std::string> names_;
  std::int64_t at_ = 0;
  int pads_ = 0;
};

// One line per input or output: name: type{sharding}; cut short where there are very many.
std::string ports(const Plan& plan, std::vector<Binding> Program::*list) {
  std::string text;
  for (const Program& p : plan.programs)
    for (const Binding& b : p.*list) {
      if (text.size() > kMetadataLimit / 4) return text + "…\n";
      text += fmt::format("{}.{}: {}{}\n", p.name, b.name, b.type.to_string(), b.sharding == Sharding{} ? "" : print_sharding(b.sharding));
    }
  return text;
}

std::map<std::string, std::string> metadata_of(const Plan& plan, std::string_view plan_text, const WriteOptions& options) {
  std::map<std::string, std::string> m = {
      {"format", "tandem"},  // what other tools look at: which program wrote this
      {kFormatKey, std::to_string(plan.format)},
      {"tandem.tool", plan.tool},
      {kDeviceKey, plan.device},
      {kMeshKey, plan.mesh.to_string()},
      {"tandem.ranks", std::to_string(plan.world_size())},
      {"tandem.inputs", ports(plan, &Program::inputs)},
      {"tandem.outputs", ports(plan, &Program::outputs)},
      {kWeightsKey, options.weights ? "all" : "frozen"},
      {kFingerprintKey, hex_digest(digest(plan))},
      {kPlanDigestKey, hex_digest(text_digest(plan_text))},
      {kDigestKey, hex_digest(0)},
  };
  std::size_t size = 0;
  for (const auto& [key, value] : m) size += key.size() + value.size();
  if (size > kMetadataLimit) m["tandem.inputs"] = m["tandem.outputs"] = "…";
  return m;
}

// The header with its own digest in place of the zeros.
std::string header_of(const Layout& layout, const std::map<std::string, std::string>& metadata) {
  const std::vector<SafetensorsItem> items = layout.items();
  std::string header = safetensors_header(items, metadata, kPage);
  const std::string key = fmt::format("\"{}\":\"", kDigestKey);
  const std::size_t at = header.find(key);
  check(at != std::string::npos, "the header names its digest");
  const std::string sum = hex_digest(text_digest(std::string_view(header).substr(sizeof(std::uint64_t))));
  return header.replace(at + key.size(), sum.size(), sum);
}

void write_padding(const ByteSink& sink, std::int64_t size) {
  static constexpr std::array<std::byte, kPage> zeros{};
  sink(std::span(zeros).first(static_cast<std::size_t>(size)));
}

void write_slice(const ByteSink& sink, const Entry& entry, const SliceSource& slice_of) {
  const PlanWeight& w = *entry.weight;
  const Tensor slice = slice_of(w, entry.rank);
  if (slice.dtype() != w.dtype || slice.shape() != w.shape)
    fail(ErrorCode::mismatch, "weight '{}' of rank {} is {}{}, the plan has {}{}", w.name, entry.rank, to_string(slice.dtype()),
         to_string(slice.shape()), to_string(w.dtype), to_string(w.shape));
  sink(slice.bytes());
}

}  // namespace

void write_engine(const ByteSink& sink, const Plan& plan, const SliceSource& slice_of, const WriteOptions& options) {
  const std::string plan_text = to_json(plan);
  const Layout layout(plan, static_cast<std::int64_t>(plan_text.size()), options);
  const auto text = [&](const std::string& words) { sink(std::as_bytes(std::span(words))); };
  text(header_of(layout, metadata_of(plan, plan_text, options)));
  for (const Entry& entry : layout.entries()) {
    if (entry.weight) write_slice(sink, entry, slice_of);
    else if (entry.code) sink(*entry.code->bytes);
    else if (entry.item.name == kPlanTensor) text(plan_text);
    else write_padding(sink, entry.size);
  }
}

void write_engine(const std::filesystem::path& path, const Plan& plan, const SliceSource& slice_of, const WriteOptions& options) {
  AtomicFile file(path);
  write_engine([&](std::span<const std::byte> bytes) { file.write(bytes); }, plan, slice_of, options);
  file.commit();
}

}  // namespace tandem
