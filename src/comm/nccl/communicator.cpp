#include "comm/nccl/communicator.h"

#include <algorithm>
#include <cstring>
#include <future>
#include <thread>

#include "comm/gpu_wait.h"
#include "core/check.h"
#include "core/stop.h"

namespace tandem::nccl {
namespace {

// What a destructor waits. NCCL waits for the other ranks of the host there, and one that leaves for trouble of its own has yet to say so.
constexpr std::chrono::nanoseconds kTakeApart = std::chrono::milliseconds(300);
constexpr std::chrono::nanoseconds kGiveBack = std::chrono::seconds(4);          // after an abort, which takes NCCL about one
constexpr std::chrono::nanoseconds kEndBeside = std::chrono::milliseconds(300);  // of work on a communicator that is to be aborted
// A process's connections break a moment before it counts as ended.
constexpr std::chrono::nanoseconds kObituary = std::chrono::milliseconds(500);

ncclConfig_t configuration() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

}  // namespace

void Family::add(ncclComm_t comm) {
  const std::lock_guard lock(mutex_);
  comms_.push_back(comm);
}

bool Family::remove(ncclComm_t comm) {
  const std::lock_guard lock(mutex_);
  return !aborted_ && std::erase(comms_, comm) > 0;
}

void Family::abort() {
  const std::lock_guard lock(mutex_);
  if (aborted_.exchange(true) || comms_.empty()) return;
  abort_ = Aside::begin([comms = comms_, beside = std::move(beside_)] {
    for (const auto& work : beside) work->wait(kEndBeside);
    api().ncclGroupStart();
    for (const ncclComm_t comm : comms) api().ncclCommAbort(comm);
    api().ncclGroupEnd();
  });
}

bool Family::beside(std::function<void()> work, std::chrono::nanoseconds limit) {
  std::shared_ptr<Aside> begun;
  {
    const std::lock_guard lock(mutex_);
    if (aborted_) return false;
    std::erase_if(beside_, [](const auto& other) { return other->wait({}); });
    beside_.push_back(begun = Aside::begin(std::move(work)));
  }
  return begun->wait(limit);
}

bool Family::has_given_back() {
  std::shared_ptr<Aside> abort;
  Deadline by = Deadline::after(kGiveBack);
  {
    const std::lock_guard lock(mutex_);
    if (!abort_) return true;
    abort = abort_;
    by = give_back_by_ ? *give_back_by_ : by;
    give_back_by_ = by;
  }
  return abort->wait(by.remaining());
}

std::optional<ncclResult_t> Family::state_of(ncclComm_t comm) {
  const std::lock_guard lock(mutex_);
  if (aborted_) return std::nullopt;
  ncclResult_t state = ncclSuccess;
  check(api().ncclCommGetAsyncError(comm, &state), "asking a communicator how it is", comm);
  return state;
}

template <typename Done>
void Communicator::wait_until(const Done& done, const char* what, Group& control, std::chrono::nanoseconds limit) {
  GpuWait wait(control, limit, fmt::format("NCCL's {}", what));
  try {
    while (!done()) {
      wait.look();
      if (StopScope::wanted()) throw Error(ErrorCode::interrupted, fmt::format("interrupted in NCCL's {}", what));
      std::this_thread::yield();
    }
  } catch (const Error& error) {
    control.abort(error.message());
    family_->abort();
    throw;
  }
}

std::unique_ptr<Communicator> Communicator::create(Group& control, Deadline deadline) {
  ncclUniqueId id = {};
  if (control.rank() == 0) check(api().ncclGetUniqueId(&id), "making a name for the ranks");
  const auto blobs = control.exchange(std::as_bytes(std::span(&id, 1)), deadline);
  tandem::check(blobs.at(0).size() == sizeof id, "rank 0 sends a name of NCCL's size");
  std::memcpy(&id, blobs[0].data(), sizeof id);
  std::unique_ptr<Communicator> made(new Communicator);
  made->family_ = std::make_shared<Family>();
  ncclConfig_t config = configuration();
  const ncclResult_t result = api().ncclCommInitRankConfig(&made->comm_, control.size(), id, control.rank(), &config);
  if (made->comm_) made->family_->add(made->comm_);
  try {
    made->settle(result, "joining the ranks", control, deadline.limit());
  } catch (...) {
    if (!made->family_->has_given_back()) static_cast<void>(made.release());  // NCCL may still write to it
    throw;
  }
  return made;
}

std::unique_ptr<Communicator> Communicator::split(Group& control, int color, int key, Deadline deadline) {
  std::unique_ptr<Communicator> made(new Communicator);
  made->family_ = family_;
  ncclConfig_t config = configuration();
  try {
    const int given = color < 0 ? NCCL_SPLIT_NOCOLOR : color;
    if (borrowed_) split_aside(control, given, key, made->comm_, deadline.limit());
    else wait_for_part(api().ncclCommSplit(comm_, given, key, &made->comm_, &config), made->comm_, color, control, deadline.limit());
  } catch (...) {
    static_cast<void>(made.release());  // NCCL may still write to it
    throw;
  }
  if (color < 0) return nullptr;
  tandem::check(made->comm_ != nullptr, "NCCL gives a communicator to each part");
  family_->add(made->comm_);
  made->settle(ncclInProgress, "splitting the ranks", control, deadline.limit());
  return made;
}

std::unique_ptr<Communicator> Communicator::borrow(ncclComm_t comm) {
  std::unique_ptr<Communicator> made(new Communicator);
  made->comm_ = comm;
  made->family_ = std::make_shared<Family>();
  made->family_->add(comm);
  made->borrowed_ = true;
  return made;
}

// The caller's communicator may be one whose calls block until all ranks have come.
void Communicator::split_aside(Group& control, int color, int key, ncclComm_t& made, std::chrono::nanoseconds limit) {
  struct Call {
    ncclConfig_t config = configuration();
    ncclComm_t made = nullptr;
    std::atomic<int> result{-1};
  };
  auto call = std::make_shared<Call>();
  Aside::begin([call, comm = comm_, color, key] { call->result = api().ncclCommSplit(comm, color, key, &call->made, &call->config); });
  try {
    wait_until([&] { return call->result >= 0; }, "splitting the ranks", control, limit);
    wait_for_part(static_cast<ncclResult_t>(call->result.load()), call->made, color, control, limit);
  } catch (...) {
    static_cast<void>(new std::shared_ptr<Call>(std::move(call)));  // never let go: NCCL may still write to it
    throw;
  }
  made = call->made;
}

// ncclCommSplit may say that it is done while it is not; it gives the communicator once it is.
void Communicator::wait_for_part(ncclResult_t result, ncclComm_t& made, int color, Group& control, std::chrono::nanoseconds limit) {
  settle(result == ncclSuccess ? ncclInProgress : result, "splitting the ranks", control, limit);
  const std::atomic_ref<ncclComm_t> written(made);
  wait_until([&] { return color < 0 || written.load(); }, "splitting the ranks", control, limit);
}

void name_the_dead(Group& control) {
  for (const Deadline obituary = Deadline::after(kObituary); !obituary.expired(); std::this_thread::sleep_for(std::chrono::milliseconds(5)))
    control.throw_if_failed();
}

Communicator::~Communicator() {
  if (!comm_) return;
  if (!family_->remove(comm_)) family_->has_given_back();
  else if (!borrowed_) Aside::begin([comm = comm_] { api().ncclCommDestroy(comm); }, kEndOfSlow)->wait(kTakeApart);
}

ncclResult_t Communicator::state() {
  const auto state = family_->state_of(comm_);
  if (!state) fail(ErrorCode::aborted, "the ranks' communicator was aborted");
  return *state;
}

void Communicator::settle(ncclResult_t result, const char* what, Group& control, std::chrono::nanoseconds limit) {
  const auto settled = [&] {
    if (result == ncclInProgress) result = state();
    if (result == ncclInProgress) return false;
    if (result != ncclSuccess) name_the_dead(control);
    check(result, what, comm_);
    return true;
  };
  wait_until(settled, what, control, limit);
}

}  // namespace tandem::nccl
