#include "core/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/check.h"

namespace tandem {
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 26;  // bytes per system call

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

std::filesystem::path part_name(const std::filesystem::path& path) {
  static std::atomic<int> count{0};
  return path.string() + fmt::format(".part-{}-{}", ::getpid(), count++);
}

// A rename is on the disk only when its folder is.
void sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)), part_(part_name(path_)) {
  std::error_code ignored;
  const auto there = std::filesystem::status(path_, ignored);
  if (std::filesystem::is_directory(there)) refuse(EISDIR);
  if (std::filesystem::exists(there) && !std::filesystem::is_regular_file(there))
    fail(ErrorCode::io, "cannot write {}: it is no regular file", path_.string());
  fd_ = ::open(folder_of(path_).c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
  if (fd_ >= 0) return;
  fd_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) refuse(errno);
  named_ = true;
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (named_) ::unlink(part_.c_str());
}

void AtomicFile::refuse(int error) const { fail(ErrorCode::io, "cannot write {}: {}", path_.string(), std::strerror(error)); }

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::write(fd_, bytes.data(), std::min(bytes.size(), kPiece));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) refuse(done < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::commit() {
  check(fd_ >= 0, "a file is committed once");
  if (::fsync(fd_) != 0) refuse(errno);
  if (!named_) {
    const std::string link = fmt::format("/proc/self/fd/{}", fd_);
    if (::linkat(AT_FDCWD, link.c_str(), AT_FDCWD, part_.c_str(), AT_SYMLINK_FOLLOW) != 0) refuse(errno);
    named_ = true;
  }
  const int fd = std::exchange(fd_, -1);
  if (::close(fd) != 0) refuse(errno);
  if (::rename(part_.c_str(), path_.c_str()) != 0) refuse(errno);
  named_ = false;
  sync_folder(folder_of(path_));
}

}  // namespace tandem
