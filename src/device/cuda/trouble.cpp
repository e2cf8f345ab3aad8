#include "device/cuda/trouble.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <optional>

namespace tandem::cuda {
namespace {

struct Loss {
  Error error;
  cudaEvent_t behind = nullptr;  // the work that does not end; null: lost for good
};

std::mutex mutex;
std::atomic<int> losses{0};  // so that calls on GPUs that are well cost nothing

// Never destroyed: GPUs may be lost while the process ends.
std::map<int, Loss>& lost() {
  static auto* map = new std::map<int, Loss>;
  return *map;
}

// The present loss of a GPU; one whose work has ended is over.
std::optional<Loss> find(int ordinal) {
  if (losses == 0) return std::nullopt;
  const std::lock_guard lock(mutex);
  const auto found = lost().find(ordinal);
  if (found == lost().end()) return std::nullopt;
  if (found->second.behind && cudaEventQuery(found->second.behind) == cudaSuccess) {
    lost().erase(found);
    --losses;
    return std::nullopt;
  }
  cudaGetLastError();
  return found->second;
}

void add(int ordinal, Loss loss) {
  const std::lock_guard lock(mutex);
  const auto [at, fresh] = lost().try_emplace(ordinal, loss);
  if (fresh) ++losses;
  else if (!loss.behind && at->second.behind) at->second = std::move(loss);
}

}  // namespace

bool breaks_context(cudaError_t status) {
  static constexpr cudaError_t kBreaking[] = {
      cudaErrorIllegalAddress,     cudaErrorLaunchFailure,   cudaErrorAssert,         cudaErrorHardwareStackError, cudaErrorIllegalInstruction, cudaErrorMisalignedAddress,
      cudaErrorInvalidAddressSpace, cudaErrorInvalidPc,      cudaErrorECCUncorrectable, cudaErrorLaunchTimeout,    cudaErrorNvlinkUncorrectable, cudaErrorUnknown};
  return std::ranges::find(kBreaking, status) != std::end(kBreaking);
}

void lose(int ordinal, const Error& error) { add(ordinal, {error}); }

void lose_until_done(int ordinal, cudaStream_t stream, const Error& error) {
  cudaEvent_t behind = nullptr;
  if (cudaEventCreateWithFlags(&behind, cudaEventDisableTiming) != cudaSuccess || cudaEventRecord(behind, stream) != cudaSuccess) behind = nullptr;
  cudaGetLastError();
  add(ordinal, {error, behind});
}

void throw_if_lost(int ordinal) {
  if (const auto loss = find(ordinal)) {
    const char* hope = loss->behind ? "until that work ends" : "until a new process starts";
    throw Error(loss->error.code(), "GPU " + std::to_string(ordinal) + " is lost to this process " + hope + ": " + loss->error.message(), loss->error.node());
  }
}

bool is_lost(int ordinal) noexcept {
  try {
    return find(ordinal).has_value();
  } catch (...) {
    return true;
  }
}

bool any_lost() noexcept { return losses > 0; }

}  // namespace tandem::cuda
