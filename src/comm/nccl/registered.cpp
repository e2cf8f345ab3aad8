#include "comm/nccl/registered.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "comm/peer/driver.h"
#include "core/check.h"
#include "device/cuda/runtime.h"

namespace tandem::nccl {
namespace {

constexpr std::chrono::nanoseconds kLetGo = std::chrono::seconds(4);

// What memory can be. The latter are both buffers, of which NCCL opens only the last to other GPUs: ranks must be alike.
enum class Kind : std::int32_t { none, buffer, shared_buffer };

bool is_wanted() {
  const char* value = std::getenv("TANDEM_NCCL_REGISTER");
  const std::string_view word = value ? value : "";
  if (word == "buffers") return true;
  if (word.empty() || word == "none") return false;
  fail(ErrorCode::invalid_argument, "TANDEM_NCCL_REGISTER is '{}': buffers and none are known{}", word,
       word == "windows" ? ", and windows no more, for NCCL's kernels on them do not end where a rank is lost" : "");
}

// Whether other processes may open it; false as well where nobody can tell.
bool can_be_opened(const std::byte* memory) {
  const peer::Driver* driver = peer::find_driver(nullptr);
  unsigned long long types = 0;
  return driver &&
         driver->pointer_attribute(&types, CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES, reinterpret_cast<CUdeviceptr>(memory)) ==
             CUDA_SUCCESS &&
         types != 0;
}

Kind kind_of(const DeviceMemory& memory) {
  if (!is_wanted() || !memory.data() || !api().ncclCommRegister || !api().ncclCommDeregister) return Kind::none;
  return can_be_opened(memory.data()) ? Kind::shared_buffer : Kind::buffer;
}

class Registered final : public Registration {
 public:
  Registered(std::shared_ptr<Communicator> comm, std::shared_ptr<const DeviceMemory> memory)
      : comm_(std::move(comm)), memory_(std::move(memory)) {
    if (api().ncclCommRegister(comm_->handle(), memory_->data(), memory_->bytes(), &handle_) != ncclSuccess) handle_ = nullptr;
  }
  Registered(const Registered&) = delete;

  // A call of NCCL on a communicator whose peers may be gone may not return; aborting it ends that.
  ~Registered() override {
    if (!handle_) return;
    const auto let_go = [comm = comm_->handle(), handle = handle_] {
      const cuda::BesideRecordings allowed;
      api().ncclCommDeregister(comm, handle);
    };
    if (!comm_->family()->beside(let_go, kLetGo)) comm_->family()->abort();
  }

  bool is_taken() const { return handle_ != nullptr; }  // by NCCL
  bool is_of(const Communicator& comm, const DeviceMemory& memory) const { return comm_.get() == &comm && memory_.get() == &memory; }

 private:
  std::shared_ptr<Communicator> comm_;
  std::shared_ptr<const DeviceMemory> memory_;
  void* handle_ = nullptr;
};

// What a rank tells the others of its memory.
struct Said {
  Kind kind = Kind::none;
  std::int32_t is_registered = 0;
};

std::vector<Said> exchange(Group& group, const Said& mine, Deadline deadline) {
  std::vector<Said> all;
  for (const auto& blob : group.exchange(std::as_bytes(std::span(&mine, 1)), deadline)) {
    tandem::check(blob.size() == sizeof mine, "a rank says what memory it has");
    std::memcpy(&all.emplace_back(), blob.data(), sizeof mine);
  }
  return all;
}

}  // namespace

std::shared_ptr<Registration> register_on_all(Group& group, const std::shared_ptr<Communicator>& comm,
                                              std::shared_ptr<const DeviceMemory> memory, std::shared_ptr<Registration> before,
                                              Deadline deadline) {
  const auto* known = dynamic_cast<const Registered*>(before.get());
  const Kind kind = kind_of(*memory);
  const std::vector<Said> all = exchange(group, {kind, known && known->is_of(*comm, *memory)}, deadline);
  if (std::ranges::all_of(all, &Said::is_registered)) return before;
  before.reset();
  if (kind == Kind::none || !std::ranges::all_of(all, [&](const Said& said) { return said.kind == kind; })) return nullptr;
  auto made = std::make_shared<Registered>(comm, std::move(memory));
  const std::vector<Said> outcomes = exchange(group, {kind, made->is_taken()}, deadline);
  return std::ranges::all_of(outcomes, &Said::is_registered) ? made : nullptr;
}

}  // namespace tandem::nccl
