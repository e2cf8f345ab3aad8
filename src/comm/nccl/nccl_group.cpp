#include "comm/nccl/nccl_group.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "comm/nccl/lent_control.h"
#include "comm/nccl/registered.h"
#include "comm/run_count.h"
#include "core/check.h"
#include "device/cuda/runtime.h"

namespace tandem::nccl {
namespace {

// What moves is moved as bytes; these are the types that NCCL adds, multiplies and compares. It does so with 8-bit floats too, but rounds
// after every step, where the contract accumulates in f32.
std::optional<ncclDataType_t> reducible(DType dtype) {
  switch (dtype) {
    case DType::f32: return ncclFloat32;
    case DType::f16: return ncclFloat16;
    case DType::bf16: return ncclBfloat16;
    case DType::f64: return ncclFloat64;
    case DType::i8: return ncclInt8;
    case DType::u8: return ncclUint8;
    case DType::i32: return ncclInt32;
    case DType::u32: return ncclUint32;
    case DType::i64: return ncclInt64;
    case DType::u64: return ncclUint64;
    default: return std::nullopt;
  }
}

ncclRedOp_t operation(Reduction reduction) {
  switch (reduction) {
    case Reduction::sum: return ncclSum;
    case Reduction::prod: return ncclProd;
    case Reduction::max: return ncclMax;
    case Reduction::min: return ncclMin;
    case Reduction::avg: return ncclAvg;
  }
  return ncclSum;
}

// Whether blocks along `axis` lie one after the other.
bool outermost(std::span<const std::int64_t> dims, int axis) {
  return std::all_of(dims.begin(), dims.begin() + axis, [](std::int64_t extent) { return extent == 1; });
}

// One call, given to NCCL.
struct Enqueue {
  const CollectiveCall& call;
  int size, rank;
  ncclComm_t comm;
  cudaStream_t stream = static_cast<cudaStream_t>(call.stream);
  std::int64_t elements = element_count(Shape(call.dims.begin(), call.dims.end()));
  std::size_t bytes = tandem::bytes(call.dtype, elements);
  std::size_t block = bytes / static_cast<std::size_t>(size);
  const std::byte* in = static_cast<const std::byte*>(call.in);
  std::byte* out = static_cast<std::byte*>(call.out);

  ncclResult_t run() {
    switch (call.kind) {
      case Collective::all_reduce: return api().ncclAllReduce(in, out, count(), dtype(), op(), comm, stream);
      case Collective::all_gather: return api().ncclAllGather(in, out, bytes, ncclUint8, comm, stream);
      case Collective::broadcast: return api().ncclBroadcast(in, out, bytes, ncclUint8, call.root, comm, stream);
      case Collective::reduce: return reduce();
      case Collective::reduce_scatter:
        return api().ncclReduceScatter(in, out, count() / static_cast<std::size_t>(size), dtype(), op(), comm, stream);
      case Collective::all_to_all: return all_to_all();
      case Collective::gather: return gather();
      case Collective::scatter: return scatter();
      case Collective::shift: return shift();
    }
    return ncclInternalError;
  }

 private:
  std::size_t count() const { return static_cast<std::size_t>(elements); }
  ncclDataType_t dtype() const { return *reducible(call.dtype); }
  ncclRedOp_t op() const { return operation(*call.reduction); }
  bool is_root() const { return rank == call.root; }
  std::byte* part(std::byte* base, int r, std::size_t size_of) const { return base + static_cast<std::size_t>(r) * size_of; }
  const std::byte* part(const std::byte* base, int r, std::size_t size_of) const { return base + static_cast<std::size_t>(r) * size_of; }
  void clear(std::size_t size_of) {
    cuda::check(cudaMemsetAsync(out, 0, size_of, stream), "clearing the output of a rank that is not the root");
  }
  ncclResult_t send(const std::byte* from, std::size_t size_of, int to) {
    return api().ncclSend(from, size_of, ncclUint8, to, comm, stream);
  }
  ncclResult_t receive(std::byte* to, std::size_t size_of, int from) { return api().ncclRecv(to, size_of, ncclUint8, from, comm, stream); }

  ncclResult_t reduce() {
    const ncclResult_t result = api().ncclReduce(in, out, count(), dtype(), op(), call.root, comm, stream);
    if (!is_root() && (result == ncclSuccess || result == ncclInProgress)) cleared_after = bytes;
    return result;
  }

  // Several sends and receives as one operation.
  template <typename Give>
  ncclResult_t together(Give give) {
    ncclResult_t result = api().ncclGroupStart();
    if (result == ncclSuccess) result = give();
    const ncclResult_t end = api().ncclGroupEnd();
    return result == ncclSuccess || result == ncclInProgress ? end : result;
  }
  static bool good(ncclResult_t result) { return result == ncclSuccess || result == ncclInProgress; }

  ncclResult_t all_to_all() {
    return together([&] {
      ncclResult_t result = ncclSuccess;
      for (int r = 0; r < size && good(result); ++r) {
        result = send(part(in, r, block), block, r);
        if (good(result)) result = receive(part(out, r, block), block, r);
      }
      return result;
    });
  }

  ncclResult_t gather() {
    if (!is_root()) clear(bytes * static_cast<std::size_t>(size));
    return together([&] {
      ncclResult_t result = send(in, bytes, call.root);
      for (int r = 0; is_root() && r < size && good(result); ++r) result = receive(part(out, r, bytes), bytes, r);
      return result;
    });
  }

  ncclResult_t scatter() {
    return together([&] {
      ncclResult_t result = receive(out, block, call.root);
      for (int r = 0; is_root() && r < size && good(result); ++r) result = send(part(in, r, block), block, r);
      return result;
    });
  }

  ncclResult_t shift() {
    const int step = (call.shift % size + size) % size;
    return together([&] {
      const ncclResult_t result = send(in, bytes, (rank + step) % size);
      return good(result) ? receive(out, bytes, (rank - step + size) % size) : result;
    });
  }

 public:
  std::size_t cleared_after = 0;  // bytes of the output to clear once NCCL has taken the call
};

std::optional<std::string> refuse(Device&, std::span<const GpuPlace>) { return missing(); }

std::unique_ptr<GpuGroup> make(Group& control, Device&, Deadline deadline, std::string*) {
  return std::make_unique<NcclGroup>(control, control.size() > 1 ? Communicator::create(control, deadline) : nullptr);
}

}  // namespace

const GpuBackend kBackend = {"nccl", refuse, make};

NcclGroup::~NcclGroup() {
  try {
    if (comm_ && !dynamic_cast<LentControl*>(&control())) control().throw_if_failed();
  } catch (const Error&) {
    comm_->family()->abort();
  }
}

std::optional<std::string> NcclGroup::refusal(const CollectiveCall& call) const {
  const CollectiveInfo& row = info(call.kind);
  if (size() == 1) return std::nullopt;
  if (row.reduces && !reducible(call.dtype)) return fmt::format("NCCL does not reduce {}", to_string(call.dtype));
  if (call.kind == Collective::all_to_all) {
    if (!outermost(call.dims, call.split_axis) || !outermost(call.dims, call.concat_axis) || call.split_axis != call.concat_axis)
      return "NCCL splits and joins along the first dimension";
  } else if (row.extent != CollectiveExtent::same && !outermost(call.dims, call.axis)) {
    return "NCCL splits and joins along the first dimension";
  }
  if (call.kind == Collective::shift && call.in == call.out && call.in) return "NCCL cannot shift in place";
  return std::nullopt;
}

void NcclGroup::enqueue(const CollectiveCall& call) {
  check_call(call, size());
  if (const auto reason = refusal(call)) fail(ErrorCode::unsupported, "{}: {}", tandem::to_string(call), *reason);
  throw_if_failed();
  Enqueue work{.call = call, .size = size(), .rank = rank(), .comm = comm_ ? comm_->handle() : nullptr};
  if (work.elements == 0) return;
  if (!comm_) {
    if (call.in != call.out) cuda::check(cudaMemcpyAsync(call.out, call.in, work.bytes, cudaMemcpyDeviceToDevice, work.stream), "copying");
    return;
  }
  if (progress_ && RunCount::counts(work.bytes)) progress_->count(work.stream);
  comm_->settle(work.run(), info(call.kind).name.data(), control(), call.deadline ? call.deadline->limit() : kStepDeadline);
  if (work.cleared_after > 0)
    cuda::check(cudaMemsetAsync(call.out, 0, work.cleared_after, work.stream), "clearing the output of a rank that is not the root");
}

std::unique_ptr<Group> NcclGroup::split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline) {
  const Deadline limit = deadline ? *deadline : Deadline::after(kRendezvousDeadline);
  std::unique_ptr<Group> part = control().split(lists, limit);  // checks the lists
  if (dynamic_cast<LentControl*>(&control())) {
    if (!part) return nullptr;
    std::shared_ptr<Communicator> own = static_cast<LentControl&>(*part).communicator();
    return std::make_unique<NcclGroup>(std::move(part), nullptr, std::move(own));
  }
  int color = -1, key = 0;
  for (std::size_t i = 0; i < lists.size(); ++i)
    if (const auto found = std::ranges::find(lists[i], rank()); found != lists[i].end())
      color = static_cast<int>(i), key = static_cast<int>(found - lists[i].begin());
  std::shared_ptr<Communicator> comm = comm_ ? comm_->split(control(), color, key, limit) : nullptr;
  if (!part) return nullptr;
  return std::make_unique<NcclGroup>(std::move(part), progress_, std::move(comm));
}

std::shared_ptr<Registration> NcclGroup::register_memory(std::shared_ptr<const DeviceMemory> memory, std::shared_ptr<Registration> before,
                                                         Deadline deadline) {
  return comm_ ? register_on_all(*this, comm_, std::move(memory), std::move(before), deadline) : nullptr;
}

void NcclGroup::throw_if_failed() {
  GpuGroup::throw_if_failed();  // names who it was
  if (!comm_) return;
  const auto state = comm_->family()->state_of(comm_->handle());
  if (!state) fail(ErrorCode::aborted, "the ranks' communicator was aborted");
  if (*state == ncclSuccess || *state == ncclInProgress) return;
  name_the_dead(control());
  check(*state, "what the ranks do together", comm_->handle());
}

void NcclGroup::abort(std::string_view reason) {
  GpuGroup::abort(reason);
  if (comm_) comm_->family()->abort();
}

}  // namespace tandem::nccl
