// RankContext: runs one program of a RankEngine on one rank; owns activations and prepared kernels.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/gpu_group.h"
#include "comm/shm/call_log.h"
#include "device/auxiliary_streams.h"
#include "plan/measured.h"
#include "runtime/memory.h"
#include "runtime/rank_engine.h"
#include "runtime/weight_ring.h"

namespace tandem {

struct RankContextOptions {
  int threads = 1;
  std::chrono::nanoseconds step_deadline = kStepDeadline;
  std::chrono::nanoseconds rendezvous_deadline = kRendezvousDeadline;
  int profile = 0;         // the optimization profile whose program runs; -1: the one that fits the shapes (fitting_profile)
  bool same_plan = true;   // ranks must have one plan; false for files that another tool made per rank
  bool own_group = false;  // make a group of the bound one's ranks at the collective point, and end it where a step fails
  std::shared_ptr<DeviceAllocator> allocator = {};  // of the memory that the context needs on its device; null: the device's own
  bool dependent_launch = true;                     // kernels may start early where the plan says so; the results are the same
  std::size_t kept_shapes = 4;                      // bound shapes whose prepared kernels are kept; the least recently used goes
};

// Serves one thread at a time; a second concurrent call is Error(invalid_argument).
class RankContext {
 public:
  // When a step began and ended, on monotonic_ns() and by the device's clock, and how long of that it waited for other ranks, as far as
  // the group tells.
  struct StepClock {
    std::size_t step = 0;
    std::int64_t begin_ns = 0, end_ns = 0, waited_ns = 0;
  };
  // Called with all steps of a run when they are done.
  using StepHook = std::function<void(std::span<const StepClock>)>;

  RankContext(std::shared_ptr<const RankEngine> engine, RankContextOptions options);
  ~RankContext();

  // Of the profile that runs.
  const Program& program() const { return engine_->program(profile_); }
  std::size_t profile() const { return profile_; }
  // As RankContextOptions::profile. Prepared shapes of others are kept, and work under way goes on. With several ranks the first prepare()
  // or run() after another profile came into use is collective: ranks compare theirs. Throws Error(invalid_argument) for one that is none.
  void set_profile(int profile);
  // `group` is borrowed and must outlive its use; null releases it. Never waits.
  void set_communicator(Group* group);
  // With a hook enqueue() waits for the work as run() does, starts kernels one by one, and names them to tools that look from outside;
  // what a caller records into a graph of its own is not timed.
  void set_step_hook(StepHook hook) { hook_ = std::move(hook); }

  // The global shape of an input, by name. What it means for the symbols is checked at the next prepare() or run().
  void set_input_shape(const std::string& name, Shape shape);
  // Instead of shapes: the symbols as bind_symbols() gave them, the same on every rank; the profile is not looked at.
  void bind(const SymbolValues& symbols);
  // Local shapes under the bound symbols; of extents that are measured in a run the most they can be.
  Shape input_shape(std::size_t index);
  Shape output_shape(std::size_t index);
  // What the last run gave, dense from the start of the output's memory. Throws Error(invalid_argument) where that run did not come so far.
  Shape last_output_shape(std::size_t index);
  // The measured symbols of the program in use, and those of the last run.
  const MeasuredList& measures() const { return measures_; }
  const SymbolValues& measured() const { return measured_; }

  // All first-time work for the bound shapes. With several ranks the first one is collective: groups are made and fingerprints compared.
  void prepare();
  // One pointer per input and output, dense and local, in memory of the host; inputs are only read, outputs are written completely. Asks
  // StopScope between steps.
  void run(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs);
  // The same with memory of the device: gives the work to `stream` (a cudaStream_t of the caller's; null: the context's own) and returns;
  // on the CPU it is done by then. The pointers stay valid until it is done. While the caller records its stream, the work becomes part of
  // that, if prepare() was called before; what was recorded keeps the context's memory. Where extents are measured, it waits for them, and
  // in a recording it throws Error(unsupported) naming the step.
  void enqueue(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, void* stream = nullptr);
  // An event of the caller's (a cudaEvent_t, borrowed) that each run records once its inputs are not read any more; null: none. Throws
  // Error(unsupported) on the CPU.
  void set_inputs_consumed_event(void* event);
  // Streams besides the one given that kernels of any program of the plan use, at most.
  int auxiliary_streams() const { return static_cast<int>(auxiliary_->streams().size()); }
  // As AuxiliaryStreams::lend(). What was recorded before is recorded again.
  void set_auxiliary_streams(std::span<void* const> streams);
  // Until all work on the context's own stream is done. Throws the error of work that failed.
  void synchronize();
  // Outputs that the last run copied, because they are an input, a weight or a second name of another output.
  int copied_outputs() const { return copied_outputs_; }
  // Why collectives of GPUs go through the host, once they are prepared; empty where they do not.
  std::string through_host() const { return joined_ ? joined_->through_host : ""; }
  // Whether memory of activations is registered with the communicator of all ranks.
  bool is_registered() const;
  const std::shared_ptr<Device>& device() const { return engine_->device(); }
  // Bytes of activations and workspace in use at present.
  std::size_t arena_bytes() const { return arena_->bytes(); }
  // Bytes of them that the bound shapes need. Prepares the shapes as prepare() does, but runs nothing.
  std::size_t memory_bytes();
  // The same of the largest shapes of a profile, whose prepared kernels are not kept.
  std::size_t largest_memory_bytes(std::size_t profile);
  // From now on activations and workspace lie in memory of the caller's, which stays valid until it is replaced or the context is gone, and
  // the work is done; null: in the context's own again. Throws Error(invalid_argument) where it is not aligned to kDeviceAlignment,
  // Error(out_of_memory) with the bytes needed where it is too small for the shapes prepared last; others are checked when they run. Where
  // the memory before is registered, all ranks call it, between the same runs, and the next run is collective as a first one is.
  void set_memory(std::byte* memory, std::size_t bytes);

 private:
  struct Bound;
  struct Joined;
  class Turn;
  void use_profile(std::size_t profile);
  void agree_on_profile();
  void require_bound();
  bool is_prepared();
  const std::shared_ptr<Bound>& bound();
  std::shared_ptr<Bound> prepare_bound(const SymbolValues& symbols);
  void reserve(std::size_t needed);
  DeviceMemory make_memory(std::size_t bytes) { return {engine_->device(), options_.allocator, stream_, bytes}; }
  void register_arena(Group& group);
  bool unregister_arena();
  void forget_recordings();
  void find_streamed();
  std::optional<std::size_t> packed_offset(std::size_t step) const;
  struct Launch;
  struct Tail;
  std::size_t prepare_steps(const Bound& bound, const SymbolValues& symbols, std::size_t first, std::size_t last,
                            std::vector<Launch>& launches);
  void set_edge(Launch& launch, std::size_t step, std::size_t first, const SymbolValues& symbols) const;
  bool is_as_timed(std::size_t step, const OpCall& call, const SymbolValues& typical) const;
  void join_group();
  void leave_group();
  // The ranks whose work that of this rank's device waits for, be it through the host; null where there are none.
  Group* others() const {
    return !device_.is_host() && group_ && group_->size() > 1 && !engine_->plan().collectives.empty() ? group_ : nullptr;
  }
  void abandon() noexcept;
  void wait_for_stream();
  void wait_until_done();
  Error located(const Error& late);
  void wait_with_others(const std::function<void(Deadline)>& wait);
  void guarded(const std::function<void()>& work);
  void end_streams(const Error& error) noexcept;
  void make_parts(Joined& joined, Group& world);
  void agree_on_collectives(Bound& bound);
  Group* group_of(std::size_t step);
  void place(Bound& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs);
  void run_staged(const std::shared_ptr<Bound>& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs);
  void check_counts(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs) const;
  void check_pointers(const Bound& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs) const;
  void stage(Bound& bound);
  void one_by_one(const std::function<void()>& steps);
  void give_recorded(Bound& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs,
                     const std::function<void()>& work);
  void enqueue_bound(const std::shared_ptr<Bound>& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs);
  class Timing;
  void run_steps(Bound& bound, Timing* timing = nullptr);
  void run_launches(const std::vector<Launch>& launches, std::size_t first, std::byte* const* next, std::byte* workspace, Timing* timing);
  void require_no_recording();
  void forget_measured();
  void run_tails(Bound& bound, Timing* timing);
  void run_tail(Bound& bound, const Measured& measured, std::size_t end, SymbolValues& symbols, Timing* timing);
  const Tail& tail(Bound& bound, std::size_t first, std::size_t last, const SymbolValues& symbols);
  std::int64_t read_extent(const Measured& measured, std::int64_t bound);
  std::size_t output_bytes(const Bound& bound, std::size_t index) const;
  [[noreturn]] void failed(std::size_t step, const Error& error);
  void run_timed(Bound& bound, std::span<std::byte* const> outputs);
  [[noreturn]] void interrupted(std::size_t step);
  void copy_outputs(const Bound& bound, std::span<std::byte* const> outputs);

  std::shared_ptr<const RankEngine> engine_;
  RankContextOptions options_;
  Device& device_;
  std::shared_ptr<Stream> stream_;
  std::shared_ptr<AuxiliaryStreams> auxiliary_;
  std::unique_ptr<Event> done_;  // of the last enqueue
  class Marks;
  std::unique_ptr<Marks> marks_;
  std::size_t profile_ = 0;         // that of the program in use
  bool fits_ = false;               // it is chosen for each set of shapes
  std::size_t agreed_profile_ = 0;  // what the ranks compared last
  std::vector<int> direct_;         // direct_outputs(program)
  MeasuredList measures_;           // measured_of(program)
  std::vector<Shape> shapes_;
  std::vector<bool> shape_set_;
  std::optional<SymbolValues> symbols_;
  SymbolValues measured_;                     // in the last run
  SymbolValues ran_;                          // all symbols of it, where any is measured
  std::list<std::shared_ptr<Bound>> bounds_;  // most recently used first
  std::shared_ptr<DeviceMemory> arena_;
  bool lent_ = false;                 // it is the caller's
  std::shared_ptr<WeightRing> ring_;  // null where all weights are resident
  struct Streamed {
    std::size_t argument = 0, offset = 0;  // in arguments_, in the ring
  };
  std::vector<Streamed> streamed_;
  std::vector<std::byte*> address_;   // per value
  std::vector<int> arguments_;        // every step's operands, then its results, as values; -1: absent
  std::vector<std::byte*> pointers_;  // their addresses
  // The bound shapes, memory, inputs and outputs of the run at hand, and those that `pointers_` are for: values of the plan are looked at
  // only where these differ.
  std::vector<const void*> given_, placed_;
  Group* bound_group_ = nullptr;
  // What the collective point made. Recordings hold it, for they must not outlive its communicators.
  struct Joined {
    std::unique_ptr<Group> own;                           // of the bound group's ranks
    std::unique_ptr<GpuGroup> gpu;                        // of the same ranks; null where collectives go through the host
    std::string through_host;                             // why they do, on a GPU
    std::map<std::string, std::unique_ptr<Group>> parts;  // by axis or rank lists
    shm::CallLog calls{nullptr};                          // of whole programs, given to a device
  };
  std::shared_ptr<Joined> joined_;
  std::map<Group*, std::shared_ptr<Registration>> registered_;  // the arena, with each group that works on it; recordings hold them too
  Group* group_ = nullptr;  // the one in use: that of GPUs, the own one or the bound one; null before the collective point
  int last_read_ = -1;      // the last step that reads an input; -1: none does; the number of steps: copies at the end do
  void* consumed_ = nullptr;
  StepHook hook_;
  bool named_ranges_ = false;  // around steps, for tools, without a hook too
  int copied_outputs_ = 0;
  std::atomic<bool> busy_{false};
};

}  // namespace tandem
