#include "core/readable.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"
#include "core/descriptor.h"

namespace tandem {

// What a pipe is given is copied by the system, which says EFAULT where there is nothing to copy; mincore() may say yes to anything in a
// sandbox.
bool is_readable(const void* address, std::size_t bytes) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) fail(ErrorCode::io, "cannot make a pipe: {}", std::strerror(errno));
  const Descriptor out(ends[0]), in(ends[1]);
  return ::write(in.get(), address, bytes) == static_cast<ssize_t>(bytes);
}

}  // namespace tandem
