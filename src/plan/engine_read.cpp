#include <set>

#include "core/check.h"
#include "core/digest.h"
#include "plan/engine_file.h"
#include "plan/engine_layout.h"
#include "plan/plan_check.h"

namespace tandem {
namespace {

template <typename... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  fail(ErrorCode::invalid_engine, format, std::forward<Args>(args)...);
}

// Empty where the file does not say.
std::string entry_of(const std::map<std::string, std::string>& metadata, const char* key) {
  const auto found = metadata.find(key);
  return found == metadata.end() ? "" : found->second;
}

void require_equal(std::string_view what, std::string_view found, std::string_view expected) {
  if (found != expected) refuse("{} is '{}', expected '{}'", what, found, expected);
}

// Other formats are told apart from damaged engines: their first eight bytes are no header length.
void check_looks_like_safetensors(std::span<const std::byte> bytes) {
  if (bytes.size() < 9) refuse("not an engine: {} bytes are too few", bytes.size());
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  if (bytes[8] != std::byte{'{'} || length > 100'000'000) refuse("not an engine: no safetensors header at its start");
}

// What a rank has packed elsewhere need not stay in its memory.
class MappedSlice {
 public:
  MappedSlice(std::shared_ptr<const MappedFile> file, std::span<const std::byte> bytes) : file_(std::move(file)), bytes_(bytes) {}
  MappedSlice(const MappedSlice&) = delete;
  ~MappedSlice() { file_->give_back(bytes_); }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::span<const std::byte> bytes_;
};

}  // namespace

EngineFile EngineFile::open(const std::filesystem::path& path, const OpSet& ops, const std::string& device) {
  const auto file = MappedFile::open(path);
  try {
    EngineFile engine = parse(file->bytes(), file, ops, device);
    engine.mapped_ = file;
    return engine;
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", path.string(), error.message()));
  }
}

EngineFile EngineFile::parse(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, const OpSet& ops,
                             const std::string& device) {
  check_looks_like_safetensors(bytes);
  EngineFile engine(Safetensors::parse(bytes, std::move(owner), ErrorCode::invalid_engine));
  const std::uint64_t start = engine.file_.data_offset();
  engine.check_header({reinterpret_cast<const char*>(bytes.data()) + sizeof(std::uint64_t), start - sizeof(std::uint64_t)}, device);
  const Tensor text = engine.file_.tensor(std::string(kPlanTensor));
  const std::string_view json(reinterpret_cast<const char*>(text.data()), text.size_bytes());
  require_equal("digest of the plan", hex_digest(text_digest(json)), entry_of(engine.metadata(), kPlanDigestKey));
  Plan plan = plan_from_json(json, ops);
  engine.read_code(plan);
  require_equal("mesh of the plan", plan.mesh.to_string(), entry_of(engine.metadata(), kMeshKey));
  require_equal("device of the plan", plan.device, entry_of(engine.metadata(), kDeviceKey));
  require_equal("fingerprint of the plan", hex_digest(digest(plan)), entry_of(engine.metadata(), kFingerprintKey));
  engine.plan_ = std::make_shared<const Plan>(std::move(plan));
  engine.has_weights_ = entry_of(engine.metadata(), kWeightsKey) == "all";
  engine.check_slices();
  return engine;
}

void EngineFile::check_header(std::string_view header, const std::string& device) const {
  const auto& m = metadata();
  if (!m.contains(kFormatKey)) refuse("not an engine: a safetensors file without '{}'", kFormatKey);
  require_equal("format version", m.at(kFormatKey), std::to_string(kPlanFormat));
  std::string blank(header);
  const std::string found = entry_of(m, kDigestKey), key = fmt::format("\"{}\":\"", kDigestKey);
  const std::size_t at = blank.find(key);
  if (at == std::string::npos || found.size() != 16 || at + key.size() + 16 > blank.size()) refuse("the header has no digest");
  blank.replace(at + key.size(), 16, hex_digest(0));
  require_equal("digest of the header", hex_digest(text_digest(blank)), found);
  if (!device.empty()) require_equal("device", entry_of(m, kDeviceKey), device);
  if (file_.data_offset() % kPage != 0) refuse("the data starts at byte {}, expected a multiple of {}", file_.data_offset(), kPage);
  const auto plan = file_.entries().find(std::string(kPlanTensor));
  if (plan == file_.entries().end() || plan->second.dtype != DType::u8) refuse("the file has no tensor '{}' of bytes", kPlanTensor);
}

// What compilers made of texts, which is as the plan says. It is copied: it outlives the file in the drivers that load it.
void EngineFile::read_code(Plan& plan) const {
  for (std::size_t i = 0; i < plan.code.size(); ++i) {
    StoredCode& code = plan.code[i];
    const auto found = file_.entries().find(code_tensor(i));
    if (found == file_.entries().end()) refuse("the tensor '{}' is missing", code_tensor(i));
    if (found->second.dtype != DType::u8 || found->second.shape != Shape{code.size})
      refuse("tensor '{}' is {}{}, expected u8[{}]", code_tensor(i), to_string(found->second.dtype), to_string(found->second.shape),
             code.size);
    const std::span<const std::byte> bytes = file_.tensor(code_tensor(i)).bytes();
    StoredCode made = stored_code(code.text, code.sm, std::make_shared<const std::vector<std::byte>>(bytes.begin(), bytes.end()));
    require_equal("digest of '" + code_tensor(i) + "'", made.digest, code.digest);
    code = std::move(made);
  }
}

// Every slice that the plan names is there with its type, and nothing else is.
void EngineFile::check_slices() const {
  const std::string which = entry_of(metadata(), kWeightsKey);
  if (which != "all" && which != "frozen") refuse("'{}' is '{}', expected all or frozen", kWeightsKey, which);
  std::set<std::string> expected = {std::string(kPlanTensor)};
  for (std::size_t i = 0; i < plan_->code.size(); ++i) expected.insert(code_tensor(i));
  for (const PlanWeight& w : plan_->weights) {
    if (!has_weights_ && !w.frozen) continue;
    const auto [dtype, shape] = stored_type(w);
    for (const int rank : slice_ranks(w, plan_->mesh)) {
      const std::string name = slice_name(w, plan_->mesh, rank);
      const auto found = file_.entries().find(name);
      if (found == file_.entries().end()) refuse("the slice '{}' is missing", name);
      const SafetensorsEntry& entry = found->second;
      if (entry.dtype != dtype || entry.shape != shape)
        refuse("slice '{}' is {}{}, expected {}{}", name, to_string(entry.dtype), to_string(entry.shape), to_string(dtype),
               to_string(shape));
      if (entry.begin % kSliceAlignment != 0)
        refuse("slice '{}' starts at byte {}, expected a multiple of {}", name, entry.begin, kSliceAlignment);
      expected.insert(name);
    }
  }
  for (const auto& [name, entry] : file_.entries())
    if (!name.starts_with(kPadPrefix) && !expected.contains(name)) refuse("tensor '{}' is unknown to the plan", name);
}

std::uint64_t EngineFile::weight_bytes(int rank) const {
  std::uint64_t total = 0;
  for (const PlanWeight& w : plan_->weights) {
    const auto found = file_.entries().find(slice_name(w, plan_->mesh, rank));
    if (found != file_.entries().end()) total += found->second.end - found->second.begin;
  }
  return total;
}

Tensor EngineFile::map_weight(const PlanWeight& weight, int rank) const {
  const std::string name = slice_name(weight, plan_->mesh, rank);
  if (!file_.has(name)) refuse("the file holds no slice '{}'{}", name, has_weights_ ? "" : ": it was written without weights");
  const Tensor stored = file_.tensor(name);
  const auto [dtype, shape] = stored_type(weight);
  if (stored.dtype() != dtype || stored.shape() != shape)
    refuse("slice '{}' is {}{}, expected {}{}", name, to_string(stored.dtype()), to_string(stored.shape()), to_string(dtype),
           to_string(shape));
  const Tensor slice = file_.viewed(name, weight.dtype, weight.shape);
  if (!mapped_) return slice;
  return {slice.dtype(), slice.shape(), slice.data(), std::make_shared<MappedSlice>(mapped_, stored.bytes())};
}

}  // namespace tandem
