// SharedMemory: anonymous memory that several processes map, named by a file descriptor and gone with its last user.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

namespace tandem {

// A mapped piece of shared memory; unmaps itself.
class Mapping {
 public:
  Mapping(std::byte* data, std::size_t bytes) : data_(data), bytes_(bytes) {}
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* data_;
  std::size_t bytes_;
};

// Owns the descriptor. Pages read as zero and take memory from their first write on. Safe to use from several threads.
// Errors are Error(io), or Error(out_of_memory) where the kernel has no room.
class SharedMemory {
 public:
  // `name` is only seen in /proc/PID/maps. The descriptor closes on exec.
  static SharedMemory create(const char* name, std::size_t bytes);
  // Another handle on the memory behind `fd`, which stays the caller's.
  static SharedMemory open(int fd);
  ~SharedMemory();
  SharedMemory(SharedMemory&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  SharedMemory& operator=(SharedMemory&&) = delete;

  int fd() const { return fd_; }
  std::size_t size() const;
  // Makes the memory reach up to `bytes`; never shrinks it, also when others grow it at the same time.
  void grow(std::size_t bytes);
  // Offset and length are multiples of the page size; the mapping may outlive this object.
  std::unique_ptr<Mapping> map(std::size_t offset, std::size_t bytes) const;
  // Gives the pages of a range back to the system; they read as zero afterwards.
  void discard(std::size_t offset, std::size_t bytes) const;
  // Bytes of memory taken at present.
  std::size_t resident_bytes() const;

 private:
  explicit SharedMemory(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace tandem
