#include "core/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"

namespace tandem {
namespace {

[[noreturn]] void fail_call(const char* what) {
  const int error = errno;
  fail(error == ENOMEM || error == ENOSPC ? ErrorCode::out_of_memory : ErrorCode::io, "shared memory: {}: {}", what, std::strerror(error));
}

struct stat status(int fd) {
  struct stat s;
  if (fstat(fd, &s) != 0) fail_call("fstat");
  return s;
}

}  // namespace

Mapping::~Mapping() { munmap(data_, bytes_); }

SharedMemory SharedMemory::create(const char* name, std::size_t bytes) {
  const int fd = memfd_create(name, MFD_CLOEXEC);
  if (fd < 0) fail_call("memfd_create");
  SharedMemory memory(fd);
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) fail_call("ftruncate");
  return memory;
}

SharedMemory SharedMemory::open(int fd) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) fail_call("cannot use the descriptor");
  return SharedMemory(copy);
}

SharedMemory::~SharedMemory() {
  if (fd_ >= 0) close(fd_);
}

std::size_t SharedMemory::size() const { return static_cast<std::size_t>(status(fd_).st_size); }

void SharedMemory::grow(std::size_t bytes) {
  // Allocating the last byte extends the file, and unlike ftruncate cannot cut off what another process has just added.
  while (fallocate(fd_, 0, static_cast<off_t>(bytes) - 1, 1) != 0)
    if (errno != EINTR) fail_call("fallocate");
}

std::unique_ptr<Mapping> SharedMemory::map(std::size_t offset, std::size_t bytes) const {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, static_cast<off_t>(offset));
  if (data == MAP_FAILED) fail_call("mmap");
  return std::make_unique<Mapping>(static_cast<std::byte*>(data), bytes);
}

void SharedMemory::discard(std::size_t offset, std::size_t bytes) const {
  while (fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(bytes)) != 0)
    if (errno != EINTR) fail_call("fallocate");
}

std::size_t SharedMemory::resident_bytes() const { return static_cast<std::size_t>(status(fd_).st_blocks) * 512; }

}  // namespace tandem
