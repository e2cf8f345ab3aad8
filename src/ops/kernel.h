// The contract between a plan and the code that computes: kernels as plain rows of functions. Target `kernels`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "device/cpu/thread_pool.h"
#include "graph/op_def.h"
#include "tandem/deadline.h"

namespace tandem {

class Group;

// Weights in the layout a kernel wants, made once at load and shared by all bound shapes of a step.
struct Packed {
  virtual ~Packed() = default;
  // Of the memory that it has at present.
  virtual std::size_t size_bytes() const = 0;
  // Of a kernel with packed_bytes(): that many bytes on the device, which may be copied to lie elsewhere in a run (RunArgs::packed).
  virtual std::byte* data() { return nullptr; }
  // Lets go of them: from now on they lie elsewhere in every run.
  virtual void release() {}
};

struct PrepareArgs {
  const OpCall& call;                         // bound: every Dim is a number
  std::span<const std::byte* const> weights;  // per operand: its memory if it is a weight, else null
  const Packed* packed = nullptr;             // what pack() returned, if anything
  int threads = 1;
  Group* group = nullptr;           // of a collective's axis or rank list; null elsewhere
  Device* device = nullptr;         // on which weights and operands lie; null: the CPU
  std::string_view algorithm = {};  // one of algorithms(), found best for this call; one that is not there any more is no error
  bool tf32 = false;                // libraries of a GPU may round operands of f32 products and convolutions to TF32
  bool exact = false;               // nothing that is weaker (KernelDef::weaker) may be taken inside either
};

// Memory of weights, and what the plan gives out, is aligned to 64; inputs and outputs of the program, which callers give, to an element
// only.
struct RunArgs {
  std::span<const std::byte* const> operands;  // null where absent, or where the kernel has packed the weight
  std::span<std::byte* const> results;
  std::byte* workspace = nullptr;  // workspace_bytes() of it, aligned to 64
  Stream& stream;                  // of the kernel's device; kernels of the CPU are done when run() returns
  Deadline deadline;
  bool may_start_early = false;       // its first launch may begin before what was given to the stream before has ended
  std::uint64_t resident = 0;         // a bit per operand: what an early launch may read before it waits
  const std::byte* packed = nullptr;  // where the bytes of Packed::data() are in this run; null: where pack() left them
  // Streams of the same device, KernelDef::auxiliary_streams of them, that the kernel may give work to between a moment of `stream` that
  // they wait for and one that waits for them.
  std::span<Stream* const> auxiliary = {};

  // For kernels of the CPU.
  ThreadPool& pool() const { return static_cast<ThreadPool&>(stream); }
};

// One step bound to shapes. The device is the thread's current one (OnDevice) when a kernel is packed, prepared and run. run() may be
// called many times, by one thread at a time; it allocates nothing of note.
class PreparedKernel {
 public:
  virtual ~PreparedKernel() = default;
  virtual std::size_t workspace_bytes() const { return 0; }
  virtual void run(const RunArgs& args) const = 0;
  // Optional, of what communicates: makes what its ranks hold together beside workspaces. Collective over its group, before the first run
  // where that is known; throws on all ranks or on none, and then the group serves on.
  virtual void meet(Deadline) const {}
};

struct KernelDef {
  std::string_view name;  // unique: "onednn_matmul"
  std::string_view op;    // empty: any op that it does not refuse
  // Null if it can run this call (its Dims may still be symbols), else the reason it cannot, as half a sentence.
  std::optional<std::string> (*refuse)(const OpCall& call) = nullptr;
  std::unique_ptr<PreparedKernel> (*prepare)(const PrepareArgs& args) = nullptr;
  // Optional. The kernel's own copy of its weights (`weights` as in PrepareArgs, whose contents have arrived); null result: it reads them
  // as they are.
  std::unique_ptr<Packed> (*pack)(const OpCall& call, std::span<const std::byte* const> weights) = nullptr;
  // Optional. The bytes of Packed::data() where that is what the kernel reads, wherever run() says it lies; 0 where pack() gives null. Who
  // has none keeps what it packed on the device. The contents of `weights` are not read.
  std::size_t (*packed_bytes)(const OpCall& call, std::span<const std::byte* const> weights) = nullptr;
  // Operands that pack() copied, so that the plain weight need not stay in memory.
  bool (*packs_operand)(const OpCall& call, std::size_t operand) = nullptr;
  // Lower goes first where nothing was timed.
  int rank = 0;
  // Optional, where kernels of one op send differently: bytes that one rank sends. Where nothing was timed, the fewest go before `rank`.
  Dim (*sent_bytes)(const OpCall& call) = nullptr;
  // Result 0 may lie in the memory of this operand where both have the same number of bytes; -1: never.
  int in_place_operand = -1;
  // The library that computes, as library_versions() names it; empty: our own code.
  std::string_view library = {};
  // In what its rounding or its treatment of NaN is weaker than docs/ops.md has it, as half a sentence; empty: in nothing.
  std::string_view weaker = {};
  // The kind of device that it runs on; operands, results and workspace lie there.
  std::string_view device = "cpu";
  // Optional. The ways in which its library can do the call, each in words that stay the same for one version of the library; what it
  // would take by itself is first. All give the same result within rounding. The device is the thread's current one.
  std::vector<std::string> (*algorithms)(const PrepareArgs& args) = nullptr;
  // Optional. The CUDA C++ that prepare() compiles for a bound call. Engines keep what becomes of it, and then need no compiler.
  std::vector<std::string> (*texts)(const OpCall& call) = nullptr;
  // Whatever it gives to the stream keeps to the rules of device/cuda/dependent.cuh, and it gives something wherever a result is not empty.
  bool dependent = false;
  // Optional. Operands that it reads before it waits, where RunArgs::resident allows that.
  bool (*reads_early)(const OpCall& call, std::size_t operand) = nullptr;
  // How many streams besides the one given it gives work to, at most. The first is for what is short and waited for.
  int auxiliary_streams = 0;
  // It copies operands to the host and computes there.
  bool through_host = false;
};

// RunArgs::resident where the operands marked in `weights` are weights.
std::uint64_t resident_operands(const KernelDef& kernel, const OpCall& call, const std::vector<bool>& weights);

// Why this kernel cannot be taken for the call; null if it can. `exact` forbids weaker ones; `compiled`: the code of its texts is at hand.
std::optional<std::string> refusal(const KernelDef& kernel, const OpCall& call, bool exact = false, bool compiled = false);

// All kernels of a kind of device, in the order of kernels.def and cuda_kernels.def; none for a kind that this program lacks.
std::span<const KernelDef* const> cpu_kernels();
std::span<const KernelDef* const> cuda_kernels();
// Those of the device that name this op or any op, lowest rank first; whether each can run a call says its refuse().
std::vector<const KernelDef*> kernels_of(std::string_view op, std::string_view device);
// Of any device; null if there is none.
const KernelDef* find_kernel(std::string_view name);

}  // namespace tandem
