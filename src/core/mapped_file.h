// A file mapped for reading. The file must not be truncated while it is mapped.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace tandem {

class MappedFile {
 public:
  // Throws Error(io) naming path and reason; only regular files.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  MappedFile(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Lets the kernel take back the memory of the pages that lie wholly in `part`; they are read again when they are touched again.
  void give_back(std::span<const std::byte> part) const;

 private:
  MappedFile() = default;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace tandem
