// A library that stands in for NCCL where there are no GPUs: ranks meet, and their calls are counted and move nothing. It behaves as NCCL
// does where that matters to whoever waits for it: nothing blocks but giving communicators back, and that does not end while graphs hold
// their kernels.
#include "comm/nccl_stub.h"

#include <nccl.h>
#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace {

constexpr int kRanks = 8, kSplits = 4, kMeetings = 256;

// Where the ranks of a communicator meet, in memory that processes share.
struct Meeting {
  std::atomic<int> arrived{0};
  std::atomic<int> calls[kRanks] = {};
  std::atomic<int> colors[kSplits][kRanks] = {};  // + 2; 1: in none, 0: has not come
  std::atomic<int> keys[kSplits][kRanks] = {};
  std::atomic<int> children[kSplits][kRanks] = {};  // by color: the number of a meeting
};

struct Meetings {
  std::atomic<int> made{1};
  Meeting all[kMeetings];
};

Meetings* meetings() {
  static Meetings* made = new (mmap(nullptr, sizeof(Meetings), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Meetings;
  return made;
}

bool waits();

tandem::test::NcclStub& stub() {
  static auto* made = new tandem::test::NcclStub{.waits = waits};
  return *made;
}

}  // namespace

struct ncclComm {
  Meeting* meeting = nullptr;
  int rank = 0, size = 0;
  std::atomic<bool> alive{true}, aborted{false};
  int splits = 0;
  std::atomic<int> registered{0};
  std::function<bool()> pending;  // a split that is under way: whether it still is
  std::mutex mutex;               // guards it
};

namespace {

// A piece of memory that is registered.
struct Buffer {
  ncclComm* comm;
};

std::mutex mutex;
std::vector<ncclComm*> all;  // never freed, so that misuse is seen
thread_local int depth = 0;
thread_local std::vector<ncclComm*> to_abort;

ncclComm* make(Meeting* meeting, int rank, int size) {
  auto* comm = new ncclComm;
  comm->meeting = meeting;
  comm->rank = rank;
  comm->size = size;
  ++meeting->arrived;
  ++stub().live;
  const std::lock_guard lock(mutex);
  all.push_back(comm);
  return comm;
}

bool usable(const ncclComm* comm) {
  if (comm && comm->alive) return true;
  ++stub().misuses;
  return false;
}

bool waits() {
  const std::lock_guard lock(mutex);
  for (const ncclComm* comm : all)
    for (int r = 0; r < comm->size && comm->alive && !comm->aborted; ++r)
      if (comm->meeting->calls[r] < comm->meeting->calls[comm->rank]) return true;
  return false;
}

void give_back(ncclComm* comm, std::atomic<int>& count) {
  while (stub().graphs > 0 || stub().stuck) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(stub().slow_ms));
  if (!comm->aborted && comm->registered > 0) ++stub().misuses;
  comm->alive = false;
  ++count;
  --stub().live;
}

ncclResult_t call(ncclComm* comm) {
  if (!usable(comm)) return ncclInvalidArgument;
  ++comm->meeting->calls[comm->rank];
  ++stub().calls;
  return stub().busy ? ncclInProgress : ncclSuccess;
}

// The communicator of the ranks of one color, once all ranks have told theirs.
bool split_is_pending(ncclComm* comm, int number, int color, ncclComm_t* made) {
  Meeting& meeting = *comm->meeting;
  int size = 0, rank = 0;
  for (int r = 0; r < comm->size; ++r) {
    const int other = meeting.colors[number][r] - 2;
    if (other < -1) return true;
    if (other != color) continue;
    ++size;
    rank += meeting.keys[number][r] < meeting.keys[number][comm->rank];
  }
  if (color < 0) return false;
  int child = 0;
  if (const int fresh = meetings()->made++; meeting.children[number][color].compare_exchange_strong(child, fresh)) child = fresh;
  std::atomic_ref(*made).store(make(&meetings()->all[child], rank, size));
  return false;
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) tandem::test::NcclStub* nccl_stub() {
  meetings();
  return &stub();
}

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const int number = meetings()->made++;
  std::memcpy(id->internal, &number, sizeof number);
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited or there was a network error" : "trouble";
}
const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t*) {
  int number = 0;
  std::memcpy(&number, id.internal, sizeof number);
  *comm = make(&meetings()->all[number], rank, size);
  return ncclInProgress;
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* made, ncclConfig_t*) {
  if (!usable(comm)) return ncclInvalidArgument;
  const int number = comm->splits++, group = color == NCCL_SPLIT_NOCOLOR ? -1 : color;
  comm->meeting->keys[number][comm->rank] = key;
  comm->meeting->colors[number][comm->rank] = group + 2;
  stub().split_to = made;
  const std::lock_guard lock(comm->mutex);
  comm->pending = [=] { return split_is_pending(comm, number, group, made); };
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  if (!usable(comm)) return ncclInvalidArgument;
  const std::lock_guard lock(comm->mutex);
  if (comm->pending && !comm->pending()) comm->pending = nullptr;
  *state = static_cast<ncclResult_t>(stub().trouble.load());
  if (*state == ncclSuccess && ((comm->pending && !stub().hasty) || stub().busy || comm->meeting->arrived < comm->size))
    *state = ncclInProgress;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (--depth > 0) return ncclSuccess;
  for (ncclComm* comm : to_abort) give_back(comm, stub().aborted);
  to_abort.clear();
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  if (!usable(comm)) return ncclInvalidArgument;
  comm->aborted = true;
  if (depth > 0) to_abort.push_back(comm);
  else give_back(comm, stub().aborted);
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (!usable(comm)) return ncclInvalidArgument;
  give_back(comm, stub().destroyed);
  return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  if (!usable(comm)) return ncclInvalidArgument;
  *count = comm->size;
  return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  if (!usable(comm)) return ncclInvalidArgument;
  *rank = comm->rank;
  return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t, int* device) {
  *device = 0;
  return ncclSuccess;
}

ncclResult_t ncclCommRegister(const ncclComm_t comm, void*, size_t, void** handle) {
  if (!usable(comm)) return ncclInvalidArgument;
  *handle = nullptr;
  if (stub().deaf) return ncclSuccess;
  ++comm->registered;
  ++stub().buffers;
  *handle = new Buffer{comm};
  return ncclSuccess;
}

ncclResult_t ncclCommDeregister(const ncclComm_t comm, void* handle) {
  const auto* buffer = static_cast<const Buffer*>(handle);
  if (!usable(comm) || comm->aborted || !buffer || buffer->comm != comm) {
    ++stub().misuses;
    return ncclInvalidUsage;
  }
  --comm->registered;
  --stub().buffers;
  delete buffer;
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void*, void*, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t comm, cudaStream_t) { return call(comm); }
ncclResult_t ncclAllGather(const void*, void*, size_t, ncclDataType_t, ncclComm_t comm, cudaStream_t) { return call(comm); }
ncclResult_t ncclBroadcast(const void*, void*, size_t, ncclDataType_t, int, ncclComm_t comm, cudaStream_t) { return call(comm); }
ncclResult_t ncclReduce(const void*, void*, size_t, ncclDataType_t, ncclRedOp_t, int, ncclComm_t comm, cudaStream_t) { return call(comm); }
ncclResult_t ncclReduceScatter(const void*, void*, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t comm, cudaStream_t) {
  return call(comm);
}
ncclResult_t ncclSend(const void*, size_t, ncclDataType_t, int, ncclComm_t comm, cudaStream_t) { return call(comm); }
ncclResult_t ncclRecv(void*, size_t, ncclDataType_t, int, ncclComm_t comm, cudaStream_t) { return call(comm); }

}  // extern "C"
