#include "team/engine_image.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"
#include "core/mapped_file.h"
#include "plan/engine_file.h"

namespace tandem {
namespace {

void write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      fail(errno == ENOSPC ? ErrorCode::out_of_memory : ErrorCode::io, "cannot hold the engine in memory: {}", std::strerror(errno));
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

}  // namespace

SharedMemory make_engine_image(const Plan& plan, const WeightSource& weights, int rank, const WriteOptions& options) {
  SharedMemory image = SharedMemory::create("tandem-engine", 0);
  // Written, not mapped: what a process never maps does not count as its memory.
  write_engine([fd = image.fd()](std::span<const std::byte> bytes) { write_all(fd, bytes); }, plan,
               [&](const PlanWeight& weight, int asked) { return weights(weight, rank < 0 ? asked : rank); }, options);
  return image;
}

SharedMemory make_plan_image(const Plan& plan) {
  SharedMemory image = SharedMemory::create("tandem-plan", 0);
  const std::string text = to_json(plan);
  write_all(image.fd(), std::as_bytes(std::span(text)));
  return image;
}

std::string read_plan_image(int fd) {
  const auto file = MappedFile::open(fmt::format("/proc/self/fd/{}", fd));
  return {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()};
}

}  // namespace tandem
