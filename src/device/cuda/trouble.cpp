#include "device/cuda/trouble.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "device/cuda/current.h"
#include "device/lost.h"

namespace tandem::cuda {
namespace {

struct Loss {
  Error error;
  bool for_good = false;
  std::vector<cudaEvent_t> behind = {};  // the work that does not end
};

std::mutex mutex;
std::atomic<int> losses{0};  // so that calls on GPUs that are well cost nothing

// Never destroyed: GPUs may be lost while the process ends.
std::map<int, Loss>& lost() {
  static auto* map = new std::map<int, Loss>;
  return *map;
}

// Work that has ended is forgotten; it may end by breaking the context.
bool is_over(Loss& loss) {
  const BesideRecordings allowed;
  std::erase_if(loss.behind, [&](cudaEvent_t behind) {
    const cudaError_t status = cudaEventQuery(behind);
    loss.for_good = loss.for_good || breaks_context(status);
    if (status == cudaSuccess) cudaEventDestroy(behind);
    return status == cudaSuccess;
  });
  cudaGetLastError();
  return !loss.for_good && loss.behind.empty();
}

// The present loss of a GPU.
std::optional<Loss> find(int ordinal) {
  if (losses == 0) return std::nullopt;
  const std::lock_guard lock(mutex);
  const auto found = lost().find(ordinal);
  if (found == lost().end()) return std::nullopt;
  if (!is_over(found->second)) return found->second;
  lost().erase(found);
  --losses;
  return std::nullopt;
}

// A loss for good counts more than one that may end, and an earlier one more than a later one.
void add(int ordinal, Loss loss) {
  const std::lock_guard lock(mutex);
  const auto [at, fresh] = lost().try_emplace(ordinal, loss);
  Loss& known = at->second;
  if (fresh) ++losses;
  else if (loss.for_good && !known.for_good) known = std::move(loss);
  else if (!known.for_good) known.behind.insert(known.behind.end(), loss.behind.begin(), loss.behind.end());
}

}  // namespace

bool breaks_context(cudaError_t status) {
  static constexpr cudaError_t kBreaking[] = {cudaErrorIllegalAddress,      cudaErrorLaunchFailure,       cudaErrorAssert,
                                              cudaErrorHardwareStackError,  cudaErrorIllegalInstruction,  cudaErrorMisalignedAddress,
                                              cudaErrorInvalidAddressSpace, cudaErrorInvalidPc,           cudaErrorECCUncorrectable,
                                              cudaErrorLaunchTimeout,       cudaErrorNvlinkUncorrectable, cudaErrorUnknown};
  return std::ranges::find(kBreaking, status) != std::end(kBreaking);
}

void lose(int ordinal, const Error& error) { add(ordinal, {.error = error, .for_good = true}); }

void lose_until_done(int ordinal, cudaStream_t stream, const Error& error) {
  try {
    const Current current(ordinal);
    cudaEvent_t behind = nullptr;
    check(cudaEventCreateWithFlags(&behind, cudaEventDisableTiming), "making an event");
    check(cudaEventRecord(behind, stream), "recording an event");
    add(ordinal, {.error = error, .behind = {behind}});
  } catch (const Error&) {
    lose(ordinal, error);
  }
}

void throw_if_lost(int ordinal) {
  if (const auto loss = find(ordinal)) {
    const char* hope = loss->for_good ? "until a new process starts" : "until that work ends";
    throw Error(loss->error.code(), "GPU " + std::to_string(ordinal) + " is lost to this process " + hope + ": " + loss->error.message(),
                loss->error.node());
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

bool tandem::any_gpu_lost() noexcept {
  for (int ordinal = 0; cuda::any_lost() && ordinal < cuda_device_count(); ++ordinal)
    if (cuda::is_lost(ordinal)) return true;
  return false;
}
