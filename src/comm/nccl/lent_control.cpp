#include "comm/nccl/lent_control.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <thread>

#include "comm/nccl/nccl_group.h"
#include "core/check.h"
#include "core/readable.h"
#include "core/stop.h"
#include "device/cuda/runtime.h"
#include "device/device.h"
#include "tandem/nccl.h"

namespace tandem {
namespace nccl {
namespace {

[[noreturn]] void refuse(std::string_view what) {
  fail(ErrorCode::unsupported, "{}: ranks that have a communicator of NCCL only exchange memory of GPUs", what);
}

// Memory of the GPU for one exchange.
struct Room {
  explicit Room(std::size_t bytes) { cuda::check(cudaMalloc(&data, std::max<std::size_t>(bytes, 1)), "allocating memory"); }
  ~Room() { cuda::free_device(data); }
  Room(const Room&) = delete;
  void* data = nullptr;
};

}  // namespace

LentControl::LentControl(std::shared_ptr<Communicator> comm, std::vector<int> members, int rank, int gpu)
    : comm_(std::move(comm)), members_(std::move(members)), rank_(rank), gpu_(gpu) {}

LentControl::~LentControl() {
  if (stream_) cudaStreamDestroy(stream_);
}

void LentControl::run(const CollectiveCall& call) { refuse(tandem::to_string(call)); }
void LentControl::send(std::span<const std::byte>, int, std::optional<Deadline>) { refuse("send"); }
void LentControl::recv(std::span<std::byte>, int, std::optional<Deadline>) { refuse("recv"); }
void LentControl::mark(std::int64_t) { throw_if_failed(); }
Progress LentControl::progress(int) const { return {}; }

void LentControl::throw_if_failed() {
  {
    const std::lock_guard lock(mutex_);
    if (failed_) throw *failed_;
  }
  const auto state = comm_->family()->state_of(comm_->handle());
  if (!state) fail(ErrorCode::aborted, "the ranks' communicator was aborted");
  if (*state != ncclInProgress) check(*state, "what the ranks exchange", comm_->handle());
}

void LentControl::abort(std::string_view reason) {
  {
    const std::lock_guard lock(mutex_);
    if (!failed_) failed_ = Error(ErrorCode::aborted, fmt::format("aborted: {}; the communicator is no longer usable", reason));
  }
  comm_->family()->abort();
}

void LentControl::check_device() const {
  int current = -1;
  cuda::check(cudaGetDevice(&current), "asking for the current GPU");
  if (current != gpu_) fail(ErrorCode::mismatch, "the communicator is on GPU {}, this rank on GPU {}", gpu_, current);
}

void LentControl::gather(const void* mine, std::size_t bytes, void* all, Deadline deadline) {
  const std::size_t begin = aligned_size(bytes), total = bytes * members_.size();
  auto room = std::make_shared<const Room>(begin + total);  // what is sent, then what comes
  std::byte* const came = static_cast<std::byte*>(room->data) + begin;
  if (!stream_) cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  try {
    cuda::check(cudaMemcpyAsync(room->data, mine, bytes, cudaMemcpyHostToDevice, stream_), "copying");
    comm_->settle(api().ncclAllGather(room->data, came, bytes, ncclUint8, comm_->handle(), stream_), "exchange", *this, deadline.limit());
    await_stream(deadline);
    cuda::check(cudaMemcpyAsync(all, came, total, cudaMemcpyDeviceToHost, stream_), "copying");
    cuda::finish(stream_, "copying");
  } catch (const Error& error) {
    abort(error.message());
    Aside::begin([room = std::move(room)]() mutable { room.reset(); });  // CUDA waits for the kernel, which the abort ends
    throw;
  }
}

void LentControl::await_stream(Deadline deadline) {
  for (; cudaStreamQuery(stream_) == cudaErrorNotReady; std::this_thread::sleep_for(std::chrono::microseconds(20))) {
    throw_if_failed();
    if (StopScope::wanted()) throw Error(ErrorCode::interrupted, "interrupted in exchange");
    if (deadline.expired())
      fail(ErrorCode::timeout, "exchange did not end within {:.1f} s; the communicator is no longer usable",
           std::chrono::duration<double>(deadline.limit()).count());
  }
}

std::vector<std::vector<std::byte>> LentControl::exchange(std::span<const std::byte> blob, std::optional<Deadline> deadline) {
  if (size() == 1) return {{blob.begin(), blob.end()}};
  check_device();
  const Deadline limit = deadline ? *deadline : Deadline::after(kRendezvousDeadline);
  const std::uint64_t mine = blob.size();
  std::vector<std::uint64_t> sizes(members_.size());
  gather(&mine, sizeof mine, sizes.data(), limit);
  const std::size_t longest = *std::ranges::max_element(sizes);
  std::vector<std::byte> padded(longest), all(longest * members_.size());
  std::ranges::copy(blob, padded.begin());
  if (longest > 0) gather(padded.data(), longest, all.data(), limit);
  std::vector<std::vector<std::byte>> blobs;
  for (std::size_t r = 0; r < sizes.size(); ++r) {
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(r * longest);
    blobs.emplace_back(first, first + static_cast<std::ptrdiff_t>(sizes[r]));
  }
  return blobs;
}

std::unique_ptr<Group> LentControl::split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline) {
  check_device();
  throw_if_failed();
  int color = -1, key = 0;
  std::vector<int> members;
  for (std::size_t i = 0; i < lists.size(); ++i)
    if (const auto found = std::ranges::find(lists[i], rank_); found != lists[i].end()) {
      color = static_cast<int>(i), key = static_cast<int>(found - lists[i].begin());
      for (const int r : lists[i]) members.push_back(members_.at(static_cast<std::size_t>(r)));
    }
  std::shared_ptr<Communicator> made = comm_->split(*this, color, key, deadline ? *deadline : Deadline::after(kRendezvousDeadline));
  if (!made) return nullptr;
  return std::make_unique<LentControl>(std::move(made), std::move(members), key, gpu_);
}

}  // namespace nccl

std::unique_ptr<Group> group_from_nccl(ncclComm* communicator) {
  using namespace nccl;
  if (!communicator) fail(ErrorCode::invalid_argument, "there is no communicator");
  // What lies there tells NCCL whether it is one.
  if (reinterpret_cast<std::uintptr_t>(communicator) % alignof(std::uint64_t) != 0 || !is_readable(communicator, sizeof(std::uint64_t)))
    fail(ErrorCode::invalid_argument, "there is no communicator at {}: it was destroyed, or the number is no address of one",
         static_cast<void*>(communicator));
  int size = 0, rank = 0, gpu = 0;
  ncclResult_t state = ncclSuccess;
  if (api().ncclCommCount(communicator, &size) != ncclSuccess || api().ncclCommUserRank(communicator, &rank) != ncclSuccess ||
      api().ncclCommCuDevice(communicator, &gpu) != ncclSuccess || api().ncclCommGetAsyncError(communicator, &state) != ncclSuccess)
    fail(ErrorCode::invalid_argument, "NCCL does not know this communicator: it was destroyed or aborted, or is none");
  if (state != ncclSuccess) fail(ErrorCode::invalid_argument, "the communicator is not ready: {}", api().ncclGetErrorString(state));
  std::vector<int> members(static_cast<std::size_t>(size));
  std::iota(members.begin(), members.end(), 0);
  std::shared_ptr<Communicator> lent = Communicator::borrow(communicator);
  auto control = std::make_unique<LentControl>(lent, std::move(members), rank, gpu);
  return std::make_unique<NcclGroup>(std::move(control), nullptr, std::move(lent));
}

}  // namespace tandem
