// AtomicFile: a file that appears whole or not at all, also when the disk is full or the process dies.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace tandem {

// Bytes go to a nameless file in the folder of `path` (a named one where the file system has none such); commit() gives it its name.
// Every failure is Error(io) naming path and reason, and leaves what was at `path` before.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  // Waits until the bytes are on the disk, then replaces `path`.
  void commit();

 private:
  [[noreturn]] void refuse(int error) const;

  std::filesystem::path path_;
  std::filesystem::path part_;  // the name before commit
  bool named_ = false;          // part_ exists
  int fd_ = -1;
};

}  // namespace tandem
