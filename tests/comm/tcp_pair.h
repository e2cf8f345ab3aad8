// A Group of two processes that share no memory, over a TCP connection, as a caller of the library may have one of its own between hosts.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "comm/group.h"
#include "core/descriptor.h"

namespace tandem::test {

// They exchange bytes and split; it has no collectives, and no rank sees the progress of the other.
class TcpPair final : public Group {
 public:
  // Rank 0 listens at `address` (IPv4), rank 1 connects to it.
  static std::unique_ptr<TcpPair> meet(int rank, const std::string& address, int port, Deadline deadline);

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }
  std::string_view backend() const override { return "tcp"; }
  std::span<const int> members() const override { return members_; }
  void run(const CollectiveCall& call) override;
  void send(std::span<const std::byte> bytes, int to, std::optional<Deadline> deadline) override;
  void recv(std::span<std::byte> bytes, int from, std::optional<Deadline> deadline) override;
  std::vector<std::vector<std::byte>> exchange(std::span<const std::byte> blob, std::optional<Deadline> deadline = {}) override;
  std::unique_ptr<Group> split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline = {}) override;
  void mark(std::int64_t) override { throw_if_failed(); }
  void throw_if_failed() override;
  Progress progress(int) const override { return {}; }
  void abort(std::string_view reason) override;

 private:
  // The connection, and what has ended it.
  struct Wire {
    Descriptor socket;
    int here = 0;  // this process's rank in the world
    std::mutex mutex;
    std::optional<Error> ended;
  };
  TcpPair(std::shared_ptr<Wire> wire, std::vector<int> members, int rank)
      : wire_(std::move(wire)), members_(std::move(members)), rank_(rank) {}
  [[noreturn]] void end(const Error& error);
  // Moves all of both, in whichever order the connection takes them.
  void move(std::span<const std::byte> out, std::span<std::byte> in, Deadline deadline);

  std::shared_ptr<Wire> wire_;
  std::vector<int> members_;
  int rank_;
};

}  // namespace tandem::test
