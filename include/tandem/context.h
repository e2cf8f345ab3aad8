// Running one rank of an engine on the thread that calls. Public.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tandem/device_memory.h"
#include "tandem/engine.h"
#include "tandem/group.h"
#include "tandem/profile.h"

namespace tandem {

struct ContextOptions {
  int rank = 0;
  int threads = 0;  // 0: cores / ranks
  // The optimization profile whose program runs, as set_profile() takes it.
  int profile = 0;
  bool dependent_launch = true;  // as in TeamOptions
  // Bytes of the rank's GPU that its weights may take; unset: all are resident. Those that have no room stay in pinned memory of the host
  // and are copied to the GPU in each run, just before the steps that read them, beside computing. The budget holds the room in which they
  // arrive for one context; each further one takes it again (WeightMemory::ring_bytes). Contexts of an engine with the same budget share
  // what is loaded. Results are the same to the bit. Error(unsupported) for CPU ranks, whose weights are read where the file is mapped;
  // Error(invalid_argument) with the least budget where it is too small.
  std::optional<std::size_t> weight_budget_bytes = {};
  double step_deadline_s = 30;
  double rendezvous_deadline_s = 60;
  // Asked between steps and several times a second while the rank waits for others. Once it gives true, prepare() or run() ends with
  // Error(interrupted), and the other ranks with Error(aborted).
  std::function<bool()> stop;
  // Of the memory that the context needs on the rank's device; null: the device's own. Weights are the engine's, which does not ask it.
  std::shared_ptr<DeviceAllocator> allocator;
  // Told how far the loading of the rank's weights is, by the constructor.
  ProgressCallback progress = {};
};

// Gives the memory of an output when a run is about to write it, for callers that do not ask for shapes before.
class OutputAllocator {
 public:
  virtual ~OutputAllocator() = default;
  // `bytes` on the rank's device for output number `output`, aligned to kDeviceAlignment at best, to an element at least; it may be
  // `current`, what the caller gave to the run, if that is not null. Null where there is none. `stream` as given to enqueue(), else null.
  // Of an output whose shape depends on data they are those of the largest shape.
  virtual void* reallocate(std::size_t output, void* current, std::size_t bytes, void* stream) = 0;
  // What will be there; of an output whose shape depends on data what is there, dense from the start, once the run has measured it.
  virtual void notify_shape(std::size_t output, const Shape& shape) = 0;
};

// Activations and prepared kernels of one rank. Many can share an engine, which loads a rank's weights once. Serves one thread at a time;
// a second concurrent call is Error(invalid_argument). Inputs and outputs are numbered as Engine::inputs() and outputs() list them.
// The memory a run reads and writes is the caller's: nothing is copied but outputs that are an input, a weight or a second name of
// another output, see last_copies().
class Context {
 public:
  // Loads the weights of the rank unless another context of the engine has.
  explicit Context(const Engine& engine, const ContextOptions& options = {});
  ~Context();
  Context(Context&&) noexcept;

  int rank() const;
  // The number of the GPU that it runs on; -1 on the CPU.
  int gpu() const;
  // Binds the ranks that this one runs with; null releases them. Local, never waits; in any order on the ranks, and again with the same or
  // another group. The first prepare() or run() after it is the collective point: the context makes a group of its own there, so that
  // several contexts and the caller can use one group, if all ranks first use them in the same order. Throws Error(mismatch) for another
  // size or rank than the engine's; an engine of one rank takes any group. One that communicates with nobody leaves a notice.
  void set_communicator(std::shared_ptr<Group> group);
  // Sentences about what is bound, for who uses this context.
  const std::vector<std::string>& notices() const;

  // Whose program runs from now on, with kernels chosen for its typical shapes; the shapes that are set stay, and must fit it: else an
  // error says which profile would. -1: for each set of shapes the one that fits, of several that whose typical shapes are nearest. Local,
  // never waits, between calls at any time: work that was given goes on, and prepared shapes of each profile are kept. All ranks must use
  // one profile: with several, the first prepare() or run() after another came into use is collective, and throws Error(mismatch) where
  // they differ. Error(invalid_argument) for one that is none.
  void set_profile(int profile);
  // The one in use; with -1, that of the last shapes that were looked at.
  int profile() const;
  // The shape of the whole input, of all ranks together; checked at the next prepare(), run() or output_shape().
  void set_input_shape(std::size_t input, Shape shape);
  // The same from the shape of this rank's part; every rank has a part of that size. Throws Error(invalid_argument) where that does not
  // say what the whole is.
  void set_local_input_shape(std::size_t input, const Shape& shape);
  // Shapes of this rank's part; of an output whose shape depends on data the largest, before a run and after. Throw what is wrong with the
  // shapes set so far.
  Shape input_shape(std::size_t input);
  Shape output_shape(std::size_t output);
  // Per dimension of an output whether its extent depends on data, as behind NonZero.
  std::vector<bool> measured_dims(std::size_t output) const;
  // What the last run() or enqueue() wrote of this rank's part, dense from the start of the memory it was given. Where the shape depends on
  // data Error(invalid_argument) before a run, and after one that failed.
  Shape last_output_shape(std::size_t output);

  // All first-time work for the shapes that are set. With several ranks the first one after set_communicator() is collective.
  void prepare();
  // One pointer per input and output: dense, row-major, of this rank's part. Inputs are only read; outputs are written completely and
  // may be used for intermediate values before, so they must not overlap inputs. Of an output whose shape depends on data the memory is for
  // output_shape(), and last_output_shape() says what was written. Only what has no bytes may be null: Error(invalid_argument) else. Ranks
  // that communicate must all call. Throws Error; after another rank's failure the group is of no more use.
  void run(std::span<const void* const> inputs, std::span<void* const> outputs);
  // The same with memory of the rank's device: gives the work to `stream` (a cudaStream_t of the caller's on that GPU, where CUDA's
  // default stream is cudaStreamLegacy; null: the context's own) and returns without waiting for it; on CPU ranks it is done by then. What
  // the pointers lead to stays valid until it is done. Calls on different streams run one after the other. While the caller records its
  // stream into a graph of its own, the work becomes part of that; call prepare() before. What was recorded keeps the memory that it needs,
  // also when the context is gone. It shares that with the context's own runs, against which its replays are not ordered: the caller sees
  // to it that neither begins before the other has ended. Contexts that communicate and share a GPU are to be given to one stream, or
  // ordered alike on all ranks: else each may wait on one GPU for what the other holds up on another, until their deadlines end both.
  // Where extents depend on data it waits until they are measured, for the step deadline at most, and gives the steps behind then; within a
  // recording of the caller's that is Error(unsupported).
  void enqueue(std::span<const void* const> inputs, std::span<void* const> outputs, void* stream = nullptr);
  // From now on each run asks for the memory of this output, before anything is computed, and what it is given for it may be null; null: as
  // before. Error(out_of_memory) where there is none.
  void set_output_allocator(std::size_t output, std::shared_ptr<OutputAllocator> allocator);
  // An event of the caller's (a cudaEvent_t, borrowed) that every run records once it reads its inputs no more; null: none. Within a
  // recording of the caller's it becomes a step of that. Error(unsupported) on CPU ranks, which have read them when the call returns.
  void set_inputs_consumed_event(void* event);
  // Streams besides the one given that runs give work to, at most: of an engine for GPUs with attention over ranks, whose exchanges go
  // beside it; else 0.
  int auxiliary_streams() const;
  // From now on those are streams of the caller's (cudaStream_t on the context's GPU, borrowed), in this order; the context's own where one
  // is null or there are fewer, as with none. The first is best of a high priority. They are in use from a run's place in its stream to its
  // end there, stay valid until they are replaced or the context is gone and the work is done, and may serve other work and contexts. Runs
  // that are replayed are given as one graph to the stream of the run alone. Throws Error(invalid_argument), and changes nothing, for more
  // than auxiliary_streams(), one that occurs twice, CUDA's default stream and a stream of another GPU; a run throws it where one is the
  // stream that it is given to, or is recorded without that.
  void set_auxiliary_streams(std::span<void* const> streams);
  // Until what was given to the context is done, on whatever streams; throws the error of work that failed.
  void synchronize();
  // Told of every step of each run from now on; null: no more. Then enqueue() waits until the work is done, kernels are started one by one
  // instead of from a recording, and each is named to tools that look from outside (NVTX; with TANDEM_NVTX=1 in the environment without a
  // profiler too). What a caller records into a graph of its own is not timed. On a GPU the times are the GPU's own.
  void set_profiler(StepProfiler profiler);
  // Bytes of the device for activations and workspace that the shapes set need, but for the workspace of steps behind an extent that
  // depends on data, which the context makes itself where it needs more. Does their first-time work, as prepare() does, but runs nothing;
  // with several ranks the first one is collective.
  std::size_t device_memory_bytes();
  // The same for the largest shapes of an optimization profile, be it in use or not. Smaller ones mostly need less, but kernels may take
  // another workspace for them.
  std::size_t max_device_memory_bytes(std::size_t profile = 0);
  // From now on they lie in memory of the caller's (of the host for CPU ranks), such as one block for several contexts that never run at a
  // time; null: in the context's own again. It stays valid until it is replaced or the context is gone, the work given is done, and graphs
  // of the caller's that recorded it are gone. Throws Error(invalid_argument) unless it is aligned to kDeviceAlignment,
  // Error(out_of_memory) with the bytes needed if it is too small for the shapes prepared last; shapes set later are checked when they
  // run. What run() and prepare() stage on a GPU is not part of it. Where the context's own memory is registered with NCCL (docs/gpu.md)
  // all ranks call this, between the same runs, and the run that follows is collective as a first one is.
  void set_device_memory(void* memory, std::size_t bytes);
  // Outputs that the last run had to copy.
  int last_copies() const;

 private:
  std::vector<void*> allocated(std::span<void* const> outputs, void* stream);
  void notify_measured();
  struct Data;
  std::unique_ptr<Data> data_;
};

}  // namespace tandem
