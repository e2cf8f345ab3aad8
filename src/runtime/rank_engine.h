// RankEngine: a Plan with the weights of one rank, packed for the kernels that want their own layout.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "ops/kernel.h"
#include "plan/engine_file.h"
#include "runtime/weight_blocks.h"

namespace tandem {

// The slice of a weight that belongs to `rank`; thread-safe where several ranks of a process load at once.
using WeightSource = std::function<Tensor(const PlanWeight&, int rank)>;

// Told how much of loading is done, 0 … 1, on the thread that loads. May throw to end it.
using LoadProgress = std::function<void(double done)>;

// Opens an engine file for this build's ops and kinds of device. Where it was built with other libraries than this program has, the
// affected steps are chosen again, or, if `strict`, Error(mismatch) names both. Error(invalid_engine) names a kernel this build does
// not have.
EngineFile open_engine_file(const std::filesystem::path& path, bool strict = false);
// The same from the bytes of one.
EngineFile parse_engine_file(const Tensor& bytes, bool strict = false);

// Throws Error(mismatch) where the plan was built for another GPU than this one.
void check_target(const Plan& plan, const Device& device);

// Immutable once loaded: shared by any number of contexts and threads.
class RankEngine {
 public:
  // Runs KernelDef::pack; plain copies of weights that every user has packed are dropped. Throws Error(mismatch) naming a weight that
  // is not what the plan says, Error(invalid_engine) naming a kernel this build does not have.
  // Opens the device of the rank, and throws what open_device() throws. With a budget the weights take at most so many bytes of the device,
  // the ring of one context among them; those that are not resident stay in pinned memory of the host (streaming()). While it loads, a
  // weight that a kernel packs is there a second time, without a budget up to a quarter of them, at most 4 GiB. Error(invalid_argument)
  // says the least budget, Error(out_of_memory) without one that there is such a thing.
  static std::shared_ptr<const RankEngine> load(std::shared_ptr<const Plan> plan, int rank, const WeightSource& weights,
                                                const LoadProgress& progress = {}, std::optional<std::size_t> budget = {});

  // The same from an engine file, whose slices stay mapped where kernels use them as they are. `plan_text`, if any, is the JSON of a plan
  // for the same weights, which is run instead of the file's.
  static std::shared_ptr<const RankEngine> open(const std::filesystem::path& engine_file, int rank, const LoadProgress& progress = {},
                                                std::string_view plan_text = {}, std::optional<std::size_t> budget = {});
  // What load() with that budget would take, without loading.
  static WeightSizes weigh(std::shared_ptr<const Plan> plan, int rank, std::optional<std::size_t> budget = {});

  const Plan& plan() const { return *plan_; }
  int rank() const { return rank_; }
  // digest(plan()): what ranks compare before they run together.
  std::uint64_t plan_digest() const { return digest_; }
  const Program& program(std::size_t index) const { return plan_->programs.at(index); }
  const std::shared_ptr<Device>& device() const { return device_; }
  // On the device; null where it was dropped, or is streamed.
  const std::byte* weight(std::size_t index) const { return weight_data_[index]; }
  // The same, but of one that is streamed where it is on the host.
  const std::byte* weight_anywhere(std::size_t index) const;
  // Null where all weights are resident.
  const Streaming* streaming() const { return streaming_.get(); }
  const Packed* packed(std::size_t program, std::size_t step) const { return packed_[program][step].get(); }
  const KernelDef& kernel(std::size_t program, std::size_t step) const { return *kernels_[program][step]; }
  // The step's call with symbolic Dims.
  OpCall call(std::size_t program, std::size_t step) const;
  // That the weights take, without those that are streamed.
  std::size_t weight_bytes() const;

 private:
  RankEngine() = default;
  // Plan, kernels and device, without weights.
  static std::shared_ptr<RankEngine> bare(std::shared_ptr<const Plan> plan, int rank);
  void load_weights(const WeightSource& weights, const LoadProgress& progress);
  std::optional<std::size_t> packed_like(std::size_t program, std::size_t step) const;
  std::vector<int> weight_operands(std::size_t program, std::size_t step) const;
  int weight_of_value(std::size_t program, int value) const;

  // rank_engine_whole.cpp
  struct StepAt {
    std::size_t program, step;
  };
  void load_whole(const LoadProgress& progress);
  std::size_t room_for(std::span<const StepAt> steps) const;
  std::size_t bring(const DeviceMemory& room, std::span<const StepAt> steps, std::size_t at);
  void pack_step(const StepAt& at, std::vector<bool>& read_plain);
  void keep_plain(const std::vector<bool>& read_plain);

  // rank_engine_budget.cpp
  bool packs(std::size_t program, std::size_t step) const;
  void load_within(std::size_t budget, const LoadProgress& progress);
  void pack_unmoved();
  WeightBlocks find_blocks() const;
  void add_blocks(WeightBlocks& out, std::size_t program, std::size_t step) const;
  int plain_block(WeightBlocks& out, int weight) const;
  void place_blocks();
  struct PackRoom;
  void pack_blocks(const LoadProgress& progress);
  std::size_t plain_bytes(std::size_t program, std::size_t step) const;
  std::unique_ptr<Packed> pack_in(PackRoom& room, std::size_t program, std::size_t step) const;

  std::shared_ptr<const Plan> plan_;
  int rank_ = 0;
  std::uint64_t digest_ = 0;
  std::shared_ptr<Device> device_;
  std::vector<Tensor> weights_;  // on the host, until they are on a device
  PinnedMemory pinned_;          // those that are streamed, one after the other
  std::unique_ptr<Streaming> streaming_;
  DeviceMemory uploaded_;  // those that some step reads as they are, one after the other
  std::vector<const std::byte*> weight_data_;
  std::vector<std::vector<std::shared_ptr<const Packed>>> packed_;  // programs for different profiles share what is the same
  std::vector<std::vector<const KernelDef*>> kernels_;
  std::vector<std::vector<const OpDef*>> ops_;
  std::vector<std::vector<int>> roots_;  // per program and value: alias_roots()
};

// Of its kernels, in any program: how many streams besides the one given they use at most.
int auxiliary_streams(const Plan& plan);

}  // namespace tandem
