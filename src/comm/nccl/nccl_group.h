// NcclGroup: collectives of GPUs by NCCL, between processes and threads of one host or of several.
#pragma once

#include <memory>

#include "comm/gpu_group.h"
#include "comm/nccl/communicator.h"

namespace tandem::nccl {

class NcclGroup final : public GpuGroup {
 public:
  NcclGroup(Group& control, std::unique_ptr<Communicator> comm) : GpuGroup(control), comm_(std::move(comm)) {}
  NcclGroup(std::unique_ptr<Group> control, std::unique_ptr<Communicator> comm) : GpuGroup(std::move(control)), comm_(std::move(comm)) {}

  std::string_view backend() const override { return "nccl"; }
  std::unique_ptr<Group> split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline) override;
  void abort(std::string_view reason) override;
  std::optional<std::string> refusal(const CollectiveCall& call) const override;

 protected:
  void enqueue(const CollectiveCall& call) override;

 private:
  std::unique_ptr<Communicator> comm_;  // null for a group of one rank
};

extern const GpuBackend kBackend;

}  // namespace tandem::nccl
