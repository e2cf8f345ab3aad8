#include "core/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "core/atomic_file.h"
#include "core/check.h"
#include "core/json_text.h"
#include "core/mapped_file.h"
#include "core/numeric.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kHeaderLimit = 100'000'000;  // the format's own
constexpr std::size_t kDepthLimit = 4;
constexpr std::size_t kRankLimit = 64;
constexpr std::array<std::pair<DType, std::string_view>, 15> kWords = {{
    {DType::f64, "F64"},
    {DType::f32, "F32"},
    {DType::f16, "F16"},
    {DType::bf16, "BF16"},
    {DType::f8e4m3, "F8_E4M3"},
    {DType::f8e5m2, "F8_E5M2"},
    {DType::i64, "I64"},
    {DType::u64, "U64"},
    {DType::i32, "I32"},
    {DType::u32, "U32"},
    {DType::i16, "I16"},
    {DType::u16, "U16"},
    {DType::i8, "I8"},
    {DType::u8, "U8"},
    {DType::boolean, "BOOL"},
}};

Json parse_header(std::string_view text, ErrorCode damaged) {
  check_json_depth(text, kDepthLimit, "safetensors header", damaged);
  std::set<std::string> names;
  std::string twice;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::key && depth == 1 && !names.insert(parsed.get<std::string>()).second)
      twice = parsed.get<std::string>();
    return true;
  };
  Json header = Json::parse(text, watch, false);
  if (header.is_discarded() || !header.is_object()) fail(damaged, "safetensors header is no JSON object");
  if (!twice.empty()) fail(damaged, "safetensors header names '{}' twice", twice);
  return header;
}

std::uint64_t number(const Json& value, std::string_view name, ErrorCode damaged) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX))
    fail(damaged, "tensor '{}': extents and offsets must be whole numbers", name);
  return value.get<std::uint64_t>();
}

DType dtype_of(const std::string& word, std::string_view name, ErrorCode damaged) {
  for (const auto& [dtype, known] : kWords)
    if (known == word) return dtype;
  fail(damaged, "tensor '{}' has the unknown dtype '{}'", name, word);
}

SafetensorsEntry parse_entry(const std::string& name, const Json& json, ErrorCode damaged) {
  const bool complete = json.is_object() && json.size() == 3 && json.contains("dtype") && json["dtype"].is_string() &&
                        json.contains("shape") && json["shape"].is_array() && json.contains("data_offsets") &&
                        json["data_offsets"].is_array() && json["data_offsets"].size() == 2;
  if (!complete || json["shape"].size() > kRankLimit) fail(damaged, "tensor '{}' needs dtype, shape and two data_offsets", name);
  SafetensorsEntry entry;
  entry.dtype = dtype_of(json["dtype"].get<std::string>(), name, damaged);
  for (const Json& extent : json["shape"]) entry.shape.push_back(static_cast<std::int64_t>(number(extent, name, damaged)));
  entry.begin = number(json["data_offsets"][0], name, damaged);
  entry.end = number(json["data_offsets"][1], name, damaged);
  std::size_t needed = 0;
  try {
    needed = bytes(entry.dtype, element_count(entry.shape));
  } catch (const Error& error) {
    fail(damaged, "tensor '{}': {}", name, error.message());
  }
  if (entry.end < entry.begin || entry.end - entry.begin != needed)
    fail(damaged, "tensor '{}' lies in bytes {} to {}, but {}{} needs {}", name, entry.begin, entry.end, to_string(entry.dtype),
         to_string(entry.shape), needed);
  return entry;
}

// The ranges must tile the data.
void check_ranges(const std::map<std::string, SafetensorsEntry>& entries, std::uint64_t size, ErrorCode damaged) {
  std::vector<std::pair<const std::string*, const SafetensorsEntry*>> order;
  for (const auto& [name, entry] : entries) order.emplace_back(&name, &entry);
  std::ranges::sort(order, {}, [](const auto& e) { return std::pair(e.second->begin, e.second->end); });
  std::uint64_t at = 0;
  for (const auto& [name, entry] : order) {
    if (entry->begin != at)
      fail(damaged, "tensor '{}' starts at byte {}, expected {}: {}", *name, entry->begin, at, entry->begin < at ? "an overlap" : "a gap");
    at = entry->end;
  }
  if (at != size) fail(damaged, "the tensors take {} bytes, but the file has {} after its header", at, size);
}

}  // namespace

Safetensors Safetensors::open(const std::filesystem::path& path, ErrorCode damaged) {
  const auto file = MappedFile::open(path);
  try {
    return parse(file->bytes(), file, damaged);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", path.string(), error.message()));
  }
}

Safetensors Safetensors::parse(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, ErrorCode damaged) {
  std::uint64_t length = 0;
  if (bytes.size() < sizeof length) fail(damaged, "{} bytes are too few for a safetensors file", bytes.size());
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > kHeaderLimit || length > bytes.size() - sizeof length)
    fail(damaged, "safetensors header of {} bytes in a file of {}", length, bytes.size());
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + sizeof length, length);
  if (text.empty() || text[0] != '{') fail(damaged, "safetensors header does not start with a brace");
  const Json header = parse_header(text, damaged);
  Safetensors file;
  file.owner_ = std::move(owner);
  file.data_offset_ = sizeof length + length;
  file.data_ = bytes.subspan(file.data_offset_);
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      file.entries_[name] = parse_entry(name, value, damaged);
      continue;
    }
    if (!value.is_object()) fail(damaged, "safetensors metadata is no object");
    for (const auto& [key, text_value] : value.items()) {
      if (!text_value.is_string()) fail(damaged, "safetensors metadata '{}' is no string", key);
      file.metadata_[key] = text_value.get<std::string>();
    }
  }
  check_ranges(file.entries_, file.data_.size(), damaged);
  return file;
}

Tensor Safetensors::tensor(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail(ErrorCode::invalid_argument, "the file has no tensor '{}'", name);
  return Tensor(found->second.dtype, found->second.shape, data_.data() + found->second.begin, owner_);
}

Tensor Safetensors::viewed(const std::string& name, DType dtype, Shape shape) const {
  const Tensor stored = tensor(name);
  const Tensor view(dtype, std::move(shape), stored.data(), owner_);
  check(view.size_bytes() == stored.size_bytes(), "a view of equal size");
  return view;
}

std::string_view safetensors_word(DType dtype) {
  for (const auto& [known, word] : kWords)
    if (known == dtype) return word;
  fail(ErrorCode::unsupported, "safetensors has no {}", to_string(dtype));
}

std::string safetensors_header(std::span<const SafetensorsItem> items, const std::map<std::string, std::string>& metadata,
                               std::uint64_t alignment) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t at = 0;
  for (const SafetensorsItem& item : items) {
    if (header.contains(item.name)) fail(ErrorCode::invalid_argument, "tensor '{}' is given twice", item.name);
    const std::uint64_t end = at + bytes(item.dtype, element_count(item.shape));
    header[item.name] = {{"dtype", safetensors_word(item.dtype)}, {"shape", item.shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorCode::invalid_argument, "a tensor name or metadata is no UTF-8: {}", error.what());
  }
  const std::uint64_t unpadded = sizeof(std::uint64_t) + text.size();
  text.append(static_cast<std::size_t>(round_up(static_cast<std::int64_t>(unpadded), static_cast<std::int64_t>(alignment))) - unpadded,
              ' ');
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

void write_safetensors(const std::filesystem::path& path, std::span<const std::pair<std::string, Tensor>> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsItem> items;
  for (const auto& [name, tensor] : tensors) items.push_back({name, tensor.dtype(), tensor.shape()});
  const std::string header = safetensors_header(items, metadata);
  AtomicFile file(path);
  file.write(header);
  for (const auto& [name, tensor] : tensors) file.write(tensor.bytes());
  file.commit();
}

}  // namespace tandem
