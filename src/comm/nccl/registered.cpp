#include "comm/nccl/registered.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "comm/peer/driver.h"
#include "core/check.h"
#include "device/cuda/runtime.h"
#include "device/cuda/trouble.h"

namespace tandem::nccl {
namespace {

constexpr std::chrono::nanoseconds kLetGo = std::chrono::seconds(4);

// What memory can be at most. The middle ones are both buffers, of which NCCL opens only the latter to other GPUs: ranks must be alike.
enum class Kind : std::int32_t { none, buffer, shared_buffer, window };

Kind wanted() {
  const char* value = std::getenv("TANDEM_NCCL_REGISTER");
  const std::string_view word = value ? value : "";
  if (word == "windows") return Kind::window;
  if (word == "buffers") return Kind::shared_buffer;
  if (word.empty() || word == "none") return Kind::none;
  fail(ErrorCode::invalid_argument, "TANDEM_NCCL_REGISTER is '{}': windows, buffers and none are known", word);
}

class WindowAllocator final : public DeviceAllocator {
 public:
  void* allocate(std::size_t bytes, std::size_t, void*) override {  // aligned to pages of the GPU
    void* memory = nullptr;
    const ncclResult_t result = api().ncclMemAlloc(&memory, bytes);
    cudaGetLastError();
    return result == ncclSuccess ? memory : nullptr;
  }
  // Beside recordings of others, as the device does; kept where a GPU is lost, for this waits for it.
  void release(void* memory, void*) noexcept override {
    const cuda::BesideRecordings allowed;
    if (!cuda::any_lost()) api().ncclMemFree(memory);
  }
};

// Whether other processes may open it; false as well where nobody can tell.
bool can_be_opened(const std::byte* memory) {
  const peer::Driver* driver = peer::find_driver(nullptr);
  unsigned long long types = 0;
  return driver &&
         driver->pointer_attribute(&types, CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES, reinterpret_cast<CUdeviceptr>(memory)) ==
             CUDA_SUCCESS &&
         types != 0;
}

Kind kind_of(const Communicator& comm, const DeviceMemory& memory) {
  if (!memory.data() || !api().ncclCommRegister || !api().ncclCommDeregister) return Kind::none;
  const std::shared_ptr<DeviceAllocator> windows = comm.borrowed() ? nullptr : window_allocator();
  const Kind can = windows && memory.allocator() == windows.get() ? Kind::window
                   : can_be_opened(memory.data())                 ? Kind::shared_buffer
                                                                  : Kind::buffer;
  return std::min(can, wanted());
}

class Registered final : public Registration {
 public:
  Registered(std::shared_ptr<Communicator> comm, std::shared_ptr<const DeviceMemory> memory)
      : comm_(std::move(comm)), memory_(std::move(memory)) {}
  Registered(const Registered&) = delete;

  // A call of NCCL on a communicator whose peers may be gone may not return; aborting it ends that.
  ~Registered() override {
    if (!handle_ && !window_) return;
    if (window_) --comm_->windows();
    const auto let_go = [comm = comm_->handle(), handle = handle_, window = window_] {
      const cuda::BesideRecordings allowed;
      if (window) api().ncclCommWindowDeregister(comm, window);
      else api().ncclCommDeregister(comm, handle);
    };
    if (!comm_->family()->beside(let_go, kLetGo)) comm_->family()->abort();
  }

  std::string_view kind() const override { return window_ ? "windows" : "buffers"; }
  bool is_of(const Communicator& comm, const DeviceMemory& memory) const { return comm_.get() == &comm && memory_.get() == &memory; }

  // False where NCCL does not take it.
  bool begin(Kind kind, Group& group, std::chrono::nanoseconds limit) {
    if (kind == Kind::window) {
      auto written = std::make_unique<ncclWindow_t>();
      try {
        const ncclResult_t result =
            api().ncclCommWindowRegister(comm_->handle(), memory_->data(), memory_->bytes(), written.get(), NCCL_WIN_COLL_SYMMETRIC);
        // It may say that it is done while it is not.
        comm_->settle(result == ncclSuccess ? ncclInProgress : result, "registering memory", group, limit);
      } catch (...) {
        static_cast<void>(written.release());  // NCCL may still write to it
        throw;
      }
      window_ = *written;
      if (window_) ++comm_->windows();
      return window_ != nullptr;
    }
    return api().ncclCommRegister(comm_->handle(), memory_->data(), memory_->bytes(), &handle_) == ncclSuccess && handle_ != nullptr;
  }

 private:
  std::shared_ptr<Communicator> comm_;
  std::shared_ptr<const DeviceMemory> memory_;
  void* handle_ = nullptr;
  ncclWindow_t window_ = nullptr;
};

// What a rank tells the others of its memory.
struct Said {
  Kind kind = Kind::none;
  std::int32_t kept = 0;      // registered already
  std::uint64_t windows = 0;  // that it has beside
  std::uint64_t bytes = 0;
};

std::vector<Said> exchange(Group& group, const Said& mine, Deadline deadline) {
  std::vector<Said> all;
  for (const auto& blob : group.exchange(std::as_bytes(std::span(&mine, 1)), deadline)) {
    tandem::check(blob.size() == sizeof mine, "a rank says what memory it has");
    std::memcpy(&all.emplace_back(), blob.data(), sizeof mine);
  }
  return all;
}

// What the memory of all ranks becomes.
Kind agreed_kind(const std::vector<Said>& all) {
  const auto alike = [&](auto member) {
    return std::ranges::all_of(all, [&](const Said& said) { return said.*member == all[0].*member; });
  };
  if (!alike(&Said::kind)) return Kind::none;
  if (all[0].kind == Kind::window && !(alike(&Said::bytes) && alike(&Said::windows))) return Kind::shared_buffer;
  return all[0].kind;
}

}  // namespace

std::shared_ptr<DeviceAllocator> window_allocator() {
  static const auto allocator = std::make_shared<WindowAllocator>();
  const Api& found = api();
  const bool has_windows = found.ncclMemAlloc && found.ncclMemFree && found.ncclCommRegister && found.ncclCommDeregister &&
                           found.ncclCommWindowRegister && found.ncclCommWindowDeregister;
  return has_windows && wanted() == Kind::window ? allocator : nullptr;
}

std::shared_ptr<Registration> register_on_all(Group& group, const std::shared_ptr<Communicator>& comm,
                                              std::shared_ptr<const DeviceMemory> memory, std::shared_ptr<Registration> before,
                                              Deadline deadline) {
  const auto* known = dynamic_cast<const Registered*>(before.get());
  const bool kept = known && known->is_of(*comm, *memory);
  const int beside = comm->windows() - (known && known->kind() == "windows" ? 1 : 0);
  const std::vector<Said> all = exchange(
      group, {.kind = kind_of(*comm, *memory), .kept = kept, .windows = static_cast<std::uint64_t>(beside), .bytes = memory->bytes()},
      deadline);
  if (std::ranges::all_of(all, &Said::kept)) return before;
  before.reset();
  const Kind kind = agreed_kind(all);
  if (kind == Kind::none) return nullptr;
  auto made = std::make_shared<Registered>(comm, std::move(memory));
  const bool taken = made->begin(kind, group, deadline.limit());
  const std::vector<Said> outcomes = exchange(group, {.kept = taken}, deadline);
  return std::ranges::all_of(outcomes, &Said::kept) ? made : nullptr;
}

}  // namespace tandem::nccl
