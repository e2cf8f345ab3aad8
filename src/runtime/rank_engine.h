// RankEngine: a Plan with the weights of one rank, packed for the kernels that want their own layout.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "device/device.h"
#include "ops/kernel.h"
#include "plan/engine_file.h"

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
  // Opens the device of the rank, and throws what open_device() throws.
  static std::shared_ptr<const RankEngine> load(std::shared_ptr<const Plan> plan, int rank, const WeightSource& weights,
                                                const LoadProgress& progress = {});

  // The same from an engine file, whose slices stay mapped where kernels use them as they are. `plan_text`, if any, is the JSON of a plan
  // for the same weights, which is run instead of the file's.
  static std::shared_ptr<const RankEngine> open(const std::filesystem::path& engine_file, int rank, const LoadProgress& progress = {},
                                                std::string_view plan_text = {});

  const Plan& plan() const { return *plan_; }
  int rank() const { return rank_; }
  // digest(plan()): what ranks compare before they run together.
  std::uint64_t plan_digest() const { return digest_; }
  const Program& program(std::size_t index) const { return plan_->programs.at(index); }
  const std::shared_ptr<Device>& device() const { return device_; }
  // On the device; null where it was dropped.
  const std::byte* weight(std::size_t index) const { return weight_data_[index]; }
  const Packed* packed(std::size_t program, std::size_t step) const { return packed_[program][step].get(); }
  const KernelDef& kernel(std::size_t program, std::size_t step) const { return *kernels_[program][step]; }
  // The step's call with symbolic Dims.
  OpCall call(std::size_t program, std::size_t step) const;
  std::size_t weight_bytes() const;

 private:
  RankEngine() = default;
  void load_weights(const WeightSource& weights, const LoadProgress& progress);
  void place_weights();
  void pack_all(const LoadProgress& progress);
  void drop_plain(const std::vector<bool>& read_plain);
  void pack_step(std::size_t program, std::size_t step, std::vector<bool>& read_plain);
  std::shared_ptr<const Packed> packed_before(std::size_t program, std::size_t step) const;

  std::shared_ptr<const Plan> plan_;
  int rank_ = 0;
  std::uint64_t digest_ = 0;
  std::shared_ptr<Device> device_;
  std::vector<Tensor> weights_;  // on the host, until they are on a device
  DeviceMemory uploaded_;        // those that some step reads as they are, one after the other
  std::vector<const std::byte*> weight_data_;
  std::vector<std::vector<std::shared_ptr<const Packed>>> packed_;  // programs for different profiles share what is the same
  std::vector<std::vector<const KernelDef*>> kernels_;
  std::vector<std::vector<const OpDef*>> ops_;
};

}  // namespace tandem
