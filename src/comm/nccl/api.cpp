#include "comm/nccl/api.h"

#include <dlfcn.h>

#include "core/check.h"
#include "device/cuda/library.h"

namespace tandem::nccl {
namespace {

constexpr int kOldest = NCCL_VERSION(2, 18, 0);  // has ncclCommSplit

Api open() {
  const cuda::Library& library = cuda::library(cuda::Which::nccl);
  Api api;
#define TANDEM_NCCL_FIND(name) api.name = library.function<decltype(::name)>(#name);
  TANDEM_NCCL_FUNCTIONS(TANDEM_NCCL_FIND)
#undef TANDEM_NCCL_FIND
#define TANDEM_NCCL_LOOK(name) api.name = reinterpret_cast<decltype(api.name)>(dlsym(library.handle(), #name));
  TANDEM_NCCL_NEWER(TANDEM_NCCL_LOOK)
#undef TANDEM_NCCL_LOOK
  int version = 0;
  api.ncclGetVersion(&version);
  if (version < kOldest)
    fail(ErrorCode::unsupported, "NCCL at {} is version {}, 2.18 is the oldest that serves", library.path(), library.version());
  return api;
}

}  // namespace

const Api& api() {
  static const Api opened = open();
  return opened;
}

std::optional<std::string> missing() {
  try {
    api();
    return std::nullopt;
  } catch (const Error& error) {
    return error.message();
  }
}

void check(ncclResult_t result, const char* what, ncclComm_t comm) {
  if (result == ncclSuccess) return;
  const char* detail = comm ? api().ncclGetLastError(comm) : nullptr;
  const std::string more = detail && *detail ? fmt::format(" ({})", detail) : "";
  const ErrorCode code = result == ncclRemoteError ? ErrorCode::rank_failed : ErrorCode::internal;
  fail(code, "NCCL: {}: {}{}", what, api().ncclGetErrorString(result), more);
}

}  // namespace tandem::nccl
