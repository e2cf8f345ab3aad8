#include "device/auxiliary_streams.h"

#include <algorithm>
#include <cstdint>

#include "core/check.h"

namespace tandem {
namespace {

constexpr std::uintptr_t kLegacyStream = 1;  // cudaStreamLegacy: it waits for all others, and cannot be recorded

std::vector<std::unique_ptr<Stream>> made(Device& device, int count) {
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < count; ++i) streams.push_back(i == 0 ? device.make_urgent_stream() : device.make_stream(1));
  return streams;
}

void check_handles(std::span<void* const> handles, std::size_t most) {
  if (handles.size() > most)
    fail(ErrorCode::invalid_argument, "{} auxiliary streams are given, the kernels use {} at most", handles.size(), most);
  for (std::size_t i = 0; i < handles.size(); ++i) {
    if (!handles[i]) continue;
    if (reinterpret_cast<std::uintptr_t>(handles[i]) == kLegacyStream)
      fail(ErrorCode::invalid_argument, "auxiliary stream {} is the default stream, beside which no other works", i);
    const auto earlier = handles.first(i);
    if (const auto same = std::ranges::find(earlier, handles[i]); same != earlier.end())
      fail(ErrorCode::invalid_argument, "auxiliary streams {} and {} are the same", same - earlier.begin(), i);
  }
}

}  // namespace

AuxiliaryStreams::AuxiliaryStreams(Device& device, int count) : AuxiliaryStreams(made(device, count)) {}

AuxiliaryStreams::AuxiliaryStreams(std::vector<std::unique_ptr<Stream>> own) : own_(std::move(own)), lent_(own_.size(), false) {
  for (const auto& stream : own_) streams_.push_back(stream.get());
}

void AuxiliaryStreams::lend(std::span<void* const> handles) {
  check_handles(handles, own_.size());
  std::vector<void*> before;
  for (const auto& stream : own_) before.push_back(stream->native());
  try {
    for (std::size_t i = 0; i < own_.size(); ++i) own_[i]->redirect(i < handles.size() ? handles[i] : nullptr);
  } catch (...) {
    for (std::size_t i = 0; i < own_.size(); ++i) own_[i]->redirect(lent_[i] ? before[i] : nullptr);
    throw;
  }
  for (std::size_t i = 0; i < own_.size(); ++i) lent_[i] = i < handles.size() && handles[i];
}

void AuxiliaryStreams::require_beside(Stream& main, Device& device) const {
  for (std::size_t i = 0; i < own_.size(); ++i) {
    if (!lent_[i]) continue;
    if (own_[i]->native() == main.native())
      fail(ErrorCode::invalid_argument, "auxiliary stream {} is the stream that the work is given to", i);
    if (device.is_recorded(*own_[i]) && !device.is_recorded(main))
      fail(ErrorCode::invalid_argument, "auxiliary stream {} is being recorded, and the stream that the work is given to is not", i);
  }
}

}  // namespace tandem
