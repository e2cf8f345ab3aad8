// NCCL as it is called here: its functions, found when the program runs, and its errors.
#pragma once

#include <nccl.h>

#include <optional>
#include <string>

namespace tandem::nccl {

// Every function of NCCL that we call; the newer ones are null where the library lacks them (memory is registered from 2.19 on).
struct Api {
// clang-format off
#define TANDEM_NCCL_FUNCTIONS(F)                                                                                              \
  F(ncclGetVersion) F(ncclGetUniqueId) F(ncclGetErrorString) F(ncclGetLastError) F(ncclCommInitRankConfig) F(ncclCommSplit)   \
  F(ncclCommDestroy) F(ncclCommAbort) F(ncclCommGetAsyncError) F(ncclCommCount) F(ncclCommUserRank) F(ncclCommCuDevice)       \
  F(ncclAllReduce) F(ncclAllGather) F(ncclBroadcast) F(ncclReduce) F(ncclReduceScatter) F(ncclSend) F(ncclRecv)               \
  F(ncclGroupStart) F(ncclGroupEnd)
#define TANDEM_NCCL_NEWER(F) F(ncclCommRegister) F(ncclCommDeregister)
// clang-format on
#define TANDEM_NCCL_MEMBER(name) decltype(&::name) name = nullptr;
  TANDEM_NCCL_FUNCTIONS(TANDEM_NCCL_MEMBER)
  TANDEM_NCCL_NEWER(TANDEM_NCCL_MEMBER)
#undef TANDEM_NCCL_MEMBER
};

// Throws Error(unsupported) where NCCL is not found, or is too old.
const Api& api();
// Why api() would throw; null if it would not.
std::optional<std::string> missing();

// Throws Error(rank_failed) for trouble at another rank, Error(internal) else, saying what was tried and what NCCL says. `comm` may be
// null.
void check(ncclResult_t result, const char* what, ncclComm_t comm = nullptr);

}  // namespace tandem::nccl
