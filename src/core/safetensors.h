// The safetensors format: a JSON header that names dtype, shape and byte range of each tensor, then the bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "tandem/error.h"

namespace tandem {

struct SafetensorsEntry {
  DType dtype = DType::f32;
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // bytes from the start of the data
};

// Reads and trusts nothing: header length, JSON depth, counts, dtypes, sizes; ranges must fill the data without gap or overlap.
// Every damage is Error(`damaged`) naming what is wrong.
class Safetensors {
 public:
  static Safetensors open(const std::filesystem::path& path, ErrorCode damaged = ErrorCode::invalid_argument);
  // `bytes` is the whole file and lives as long as `owner`.
  static Safetensors parse(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                           ErrorCode damaged = ErrorCode::invalid_argument);

  const std::map<std::string, SafetensorsEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool has(const std::string& name) const { return entries_.contains(name); }
  // Shares the file's memory. Throws Error(invalid_argument) naming the tensor if there is none.
  Tensor tensor(const std::string& name) const;
  // The same bytes under another type of equal size (packed 4-bit elements).
  Tensor viewed(const std::string& name, DType dtype, Shape shape) const;
  // Where the data starts in the file.
  std::uint64_t data_offset() const { return data_offset_; }

 private:
  std::map<std::string, SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
  std::span<const std::byte> data_;
  std::uint64_t data_offset_ = 0;
  std::shared_ptr<const void> owner_;
};

// The format's word for a dtype ("F32", "BF16", "BOOL"); Error(unsupported) for i4 and u4, which it does not have.
std::string_view safetensors_word(DType dtype);
// The header with its length in front, padded with spaces until the data starts on a multiple of `alignment`. Tensors follow
// each other in the order given.
struct SafetensorsItem {
  std::string name;
  DType dtype;
  Shape shape;
};
std::string safetensors_header(std::span<const SafetensorsItem> items, const std::map<std::string, std::string>& metadata,
                               std::uint64_t alignment = 8);
// Writes beside `path` and renames, so that no half file is left. Throws Error(io).
void write_safetensors(const std::filesystem::path& path, std::span<const std::pair<std::string, Tensor>> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace tandem
