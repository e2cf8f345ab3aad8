#include "device/upload.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "core/check.h"

namespace tandem {
namespace {

constexpr std::size_t kPiece = std::size_t{8} << 20;
constexpr unsigned kMostThreads = 8;

}  // namespace

void upload(Device& device, std::span<const Upload> pieces, Deadline deadline) {
  if (!device.is_host()) return upload_to_cuda(device, pieces, deadline);
  for (const Upload& piece : pieces)
    if (piece.bytes > 0) std::memcpy(piece.to, piece.from, piece.bytes);
}

void copy_on_host(std::span<const Upload> whole, Deadline deadline) {
  std::vector<Upload> pieces;
  for (const Upload& one : whole)
    for (std::size_t at = 0; at < one.bytes; at += kPiece) pieces.push_back({one.to + at, one.from + at, std::min(kPiece, one.bytes - at)});
  std::atomic<std::size_t> next{0};
  std::atomic<bool> late{false};
  const auto copy = [&] {
    for (std::size_t i; (i = next++) < pieces.size() && !late;) {
      if (deadline.expired()) late = true;
      else std::memcpy(pieces[i].to, pieces[i].from, pieces[i].bytes);
    }
  };
  {
    std::vector<std::jthread> threads;
    const std::size_t most = std::min<std::size_t>(pieces.size(), std::clamp(std::thread::hardware_concurrency() / 2, 1u, kMostThreads));
    for (std::size_t t = 1; t < most; ++t) threads.emplace_back(copy);
    copy();
  }
  if (late) fail(ErrorCode::timeout, "weights were not read within {:.1f} s", std::chrono::duration<double>(deadline.limit()).count());
}

int gpu_number(const Device& device) { return device.is_host() ? -1 : cuda_number(device); }

}  // namespace tandem
