// NcclGroup: collectives of GPUs by NCCL, between processes and threads of one host or of several.
#pragma once

#include <memory>

#include "comm/gpu_group.h"
#include "comm/nccl/communicator.h"
#include "comm/nccl/progress.h"

namespace tandem::nccl {

class NcclGroup final : public GpuGroup {
 public:
  // `comm` null: a group of one rank.
  NcclGroup(Group& control, std::shared_ptr<Communicator> comm)
      : GpuGroup(control), progress_(ProgressWord::of(control)), comm_(std::move(comm)) {}
  NcclGroup(std::unique_ptr<Group> control, std::shared_ptr<ProgressWord> progress, std::shared_ptr<Communicator> comm)
      : GpuGroup(std::move(control)), progress_(std::move(progress)), comm_(std::move(comm)) {}

  // A communicator of ranks of which one has failed is aborted, for NCCL would wait for that one.
  ~NcclGroup() override;

  std::string_view backend() const override { return "nccl"; }
  std::unique_ptr<Group> split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline) override;
  // Also what NCCL says of the communicator.
  void throw_if_failed() override;
  void abort(std::string_view reason) override;
  std::optional<std::string> refusal(const CollectiveCall& call) const override;
  bool counts_each() const override { return false; }
  std::shared_ptr<Registration> register_memory(std::shared_ptr<const DeviceMemory> memory, std::shared_ptr<Registration> before,
                                                Deadline deadline) override;

 protected:
  void enqueue(const CollectiveCall& call) override;

 private:
  std::shared_ptr<ProgressWord> progress_;
  std::shared_ptr<Communicator> comm_;
};

extern const GpuBackend kBackend;

}  // namespace tandem::nccl
