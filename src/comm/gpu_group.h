// Groups whose collectives run in the streams of GPUs. Each is made of a Group that the ranks already have, its control, which goes on to
// carry what lies on the host: rendezvous, exchange, marks, progress, abort, and calls without a stream.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/group.h"
#include "tandem/host.h"

namespace tandem {

class Device;
class DeviceMemory;

// Memory of a rank's GPU that its group sends from and receives into without copies of its own. Keeps the memory and lets go of it first;
// may outlive the group. Recordings of calls on that memory must be gone.
class Registration {
 public:
  virtual ~Registration() = default;
};

class GpuGroup : public Group {
 public:
  int rank() const final { return control_->rank(); }
  int size() const final { return control_->size(); }
  std::span<const int> members() const final { return control_->members(); }
  void send(std::span<const std::byte> bytes, int to, std::optional<Deadline> deadline) final { control_->send(bytes, to, deadline); }
  void recv(std::span<std::byte> bytes, int from, std::optional<Deadline> deadline) final { control_->recv(bytes, from, deadline); }
  std::vector<std::vector<std::byte>> exchange(std::span<const std::byte> blob, std::optional<Deadline> deadline) final {
    return control_->exchange(blob, deadline);
  }
  void mark(std::int64_t step) final { control_->mark(step); }
  Progress progress(int rank) const final { return control_->progress(rank); }

  // A call with a stream goes to the GPU, one without to the control group.
  void run(const CollectiveCall& call) final {
    if (call.stream) enqueue(call);
    else control_->run(call);
  }
  void throw_if_failed() override { control_->throw_if_failed(); }
  // Also ends what waits in streams of this rank, which may take until the stream is drained and recordings are gone, and is not waited
  // for.
  void abort(std::string_view reason) override { control_->abort(reason); }

  // Why this group takes no such call with a stream, as half a sentence; null if it does. The same on all ranks. Local; asks only for what
  // check_call() has passed, and for no pointers.
  virtual std::optional<std::string> refusal(const CollectiveCall& call) const = 0;
  Group& control() const { return *control_; }
  // Whether this rank's progress counts each collective that the GPU begins; else not each of a run (RunCount), and a rank that is late may
  // have counted as many as the others.
  virtual bool counts_each() const { return true; }

  // Collective: registers memory that the ranks use alike, that is, in whose calls operands lie equally far from its begin on all ranks.
  // That of all ranks is registered, or none, and then null is given, as where the group has no use for it. `before` is what the last call
  // gave; it is given again where no rank's memory is another one now, and let go else.
  virtual std::shared_ptr<Registration> register_memory(std::shared_ptr<const DeviceMemory> memory, std::shared_ptr<Registration> before,
                                                        Deadline deadline);

 protected:
  // The control group is borrowed by the world's group and owned by one made by split().
  explicit GpuGroup(Group& control) : control_(&control) {}
  explicit GpuGroup(std::unique_ptr<Group> control) : owned_(std::move(control)), control_(owned_.get()) {}

  // The GPU is the thread's current one. Throws before anything is given to the stream, else what fails is told where the stream is waited
  // for.
  virtual void enqueue(const CollectiveCall& call) = 0;

 private:
  std::unique_ptr<Group> owned_;
  Group* control_;
};

struct GpuGroupOptions {
  // "nccl", "peer", or empty for the first of gpu_backends() that can serve. The environment's TANDEM_GPU_GROUP says the same where this
  // is empty; its "host" stands for none.
  std::string backend;
  Deadline deadline = Deadline::after(kRendezvousDeadline);
  // Error(unsupported) naming two ranks that are threads of one process on one GPU: CUDA runs one function of the host at a time, so what
  // carries a collective through the host for one of them would wait for the other's for ever.
  bool refuse_threads_on_one_gpu = false;
};

// Collective. Null where no backend can serve these ranks, and then on all of them, with the reason in `why`; Error on all of them where
// the one asked for by name cannot. `control` is borrowed and outlives it; the device is the thread's current one.
std::unique_ptr<GpuGroup> make_gpu_group(Group& control, Device& device, const GpuGroupOptions& options, std::string* why);

// Where the GPU of a rank is.
struct GpuPlace {
  int rank = 0;  // in the world
  Host host;
  std::string gpu;  // Device::id()
  int process = 0;  // on that host
};

// Two ranks that are on different hosts, as half a sentence; null where all are on one.
std::optional<std::string> different_hosts(std::span<const GpuPlace> places);

// One way to communicate between GPUs.
struct GpuBackend {
  std::string_view name;
  // Why it cannot serve these ranks, each with a GPU of its own, as far as this one can see, as half a sentence; null if it can. Local.
  std::optional<std::string> (*refuse)(Device& device, std::span<const GpuPlace> places);
  // Collective, called on all ranks or on none. Null on all of them where it turns out that it cannot, with the reason in `why`.
  std::unique_ptr<GpuGroup> (*make)(Group& control, Device& device, Deadline deadline, std::string* why);
};

// What this program was built with, best first.
std::span<const GpuBackend> gpu_backends();

}  // namespace tandem
