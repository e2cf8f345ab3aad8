// LentControl: the host's side of groups whose ranks have nothing but a communicator of NCCL: what they tell one another goes through it.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "comm/group.h"
#include "comm/nccl/communicator.h"

namespace tandem::nccl {

class LentControl final : public Group {
 public:
  // `members` are ranks of the communicator that was lent.
  LentControl(std::shared_ptr<Communicator> comm, std::vector<int> members, int rank, int gpu);
  ~LentControl() override;

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }
  std::string_view backend() const override { return "nccl"; }
  std::span<const int> members() const override { return members_; }
  void run(const CollectiveCall& call) override;
  void send(std::span<const std::byte> bytes, int to, std::optional<Deadline> deadline) override;
  void recv(std::span<std::byte> bytes, int from, std::optional<Deadline> deadline) override;
  std::vector<std::vector<std::byte>> exchange(std::span<const std::byte> blob, std::optional<Deadline> deadline) override;
  // Gives a LentControl.
  std::unique_ptr<Group> split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline) override;
  void mark(std::int64_t step) override;
  void throw_if_failed() override;
  Progress progress(int rank) const override;
  void abort(std::string_view reason) override;

  const std::shared_ptr<Communicator>& communicator() const { return comm_; }

 private:
  void gather(const void* mine, std::size_t bytes, void* all, Deadline deadline);
  void await_stream(Deadline deadline);
  void check_device() const;

  std::shared_ptr<Communicator> comm_;
  std::vector<int> members_;
  int rank_, gpu_;
  cudaStream_t stream_ = nullptr;
  mutable std::mutex mutex_;
  std::optional<Error> failed_;
};

}  // namespace tandem::nccl
