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
#include "runtime/memory.h"
#include "runtime/rank_engine.h"

namespace tandem {

struct RankContextOptions {
  int threads = 1;
  std::chrono::nanoseconds step_deadline = kStepDeadline;
  std::chrono::nanoseconds rendezvous_deadline = kRendezvousDeadline;
  std::size_t program = 0;
  bool same_plan = true;  // ranks must have one plan; false for files that another tool made per rank
  bool own_group = false;  // make a group of the bound one's ranks at the collective point, and end it where a step fails
  std::size_t kept_shapes = 4;  // bound shapes whose prepared kernels are kept; the least recently used goes
};

// Serves one thread at a time; a second concurrent call is Error(invalid_argument).
class RankContext {
 public:
  // Called after each step with its number and its begin and end on monotonic_ns().
  using StepHook = std::function<void(std::size_t step, std::int64_t begin_ns, std::int64_t end_ns)>;

  RankContext(std::shared_ptr<const RankEngine> engine, RankContextOptions options);
  ~RankContext();

  const Program& program() const;
  // `group` is borrowed and must outlive its use; null releases it. Never waits.
  void set_communicator(Group* group);
  void set_step_hook(StepHook hook) { hook_ = std::move(hook); }

  // The global shape of an input, by name. What it means for the symbols is checked at the next prepare() or run().
  void set_input_shape(const std::string& name, Shape shape);
  // Instead of shapes: the symbols as bind_symbols() gave them, the same on every rank.
  void bind(const SymbolValues& symbols);
  // Local shapes under the bound symbols.
  Shape input_shape(std::size_t index);
  Shape output_shape(std::size_t index);

  // All first-time work for the bound shapes. With several ranks the first one is collective: groups are made and fingerprints compared.
  void prepare();
  // One pointer per input and output, dense and local, in memory of the host; inputs are only read, outputs are written completely. Asks
  // StopScope between steps.
  void run(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs);
  // The same with memory of the device: gives the work to `stream` (a cudaStream_t of the caller's; null: the context's own) and returns;
  // on the CPU it is done by then. The pointers stay valid until it is done. While the caller records its stream, the work becomes part of
  // that, if prepare() was called before; what was recorded keeps the context's memory.
  void enqueue(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, void* stream = nullptr);
  // Until all work on the context's own stream is done. Throws the error of work that failed.
  void synchronize();
  // Outputs that the last run copied, because they are an input, a weight or a second name of another output.
  int copied_outputs() const { return copied_outputs_; }
  // Why collectives of GPUs go through the host, once they are prepared; empty where they do not.
  std::string through_host() const { return joined_ ? joined_->through_host : ""; }
  // Bytes of activations and workspace in use at present.
  std::size_t arena_bytes() const { return arena_->bytes(); }

 private:
  struct Bound;
  struct Joined;
  class Turn;
  void require_bound();
  const std::shared_ptr<Bound>& bound();
  std::shared_ptr<Bound> prepare_bound();
  void join_group();
  void leave_group();
  GpuGroup* gpu_group() const { return dynamic_cast<GpuGroup*>(group_); }
  void wait_for_stream();
  void guarded(const std::function<void()>& work);
  void end_streams(const Error& error) noexcept;
  void make_parts(Joined& joined, Group& world);
  Group* group_of(std::size_t step);
  void place(Bound& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs);
  void run_staged(const std::shared_ptr<Bound>& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs);
  void check_counts(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs) const;
  void stage(Bound& bound);
  void enqueue_bound(const std::shared_ptr<Bound>& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs);
  void run_steps(Bound& bound);
  [[noreturn]] void interrupted(std::size_t step);
  void copy_outputs(const Bound& bound, std::span<std::byte* const> outputs);

  std::shared_ptr<const RankEngine> engine_;
  RankContextOptions options_;
  Device& device_;
  std::shared_ptr<Stream> stream_;
  std::unique_ptr<Event> done_;           // of the last enqueue
  std::vector<int> direct_;               // direct_outputs(program)
  std::vector<Shape> shapes_;
  std::vector<bool> shape_set_;
  std::optional<SymbolValues> symbols_;
  std::list<std::shared_ptr<Bound>> bounds_;  // most recently used first
  std::shared_ptr<DeviceMemory> arena_;
  std::vector<std::byte*> address_;       // per value; filled for each run
  std::vector<int> arguments_;            // every step's operands, then its results, as values; -1: absent
  std::vector<std::byte*> pointers_;      // their addresses; filled for each run
  Group* bound_group_ = nullptr;
  // What the collective point made. Recordings hold it, for they must not outlive its communicators.
  struct Joined {
    std::unique_ptr<Group> own;                           // of the bound group's ranks
    std::unique_ptr<GpuGroup> gpu;                        // of the same ranks; null where collectives go through the host
    std::string through_host;                             // why they do, on a GPU
    std::map<std::string, std::unique_ptr<Group>> parts;  // by axis or rank lists
  };
  std::shared_ptr<Joined> joined_;
  Group* group_ = nullptr;  // the one in use: that of GPUs, the own one or the bound one; null before the collective point
  StepHook hook_;
  int copied_outputs_ = 0;
  std::atomic<bool> busy_{false};
};

}  // namespace tandem
