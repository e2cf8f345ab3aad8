// A group that passes everything on to another: for tests that change one thing of it.
#pragma once

#include "comm/group.h"

namespace tandem::test {

class ForwardingGroup : public Group {
 public:
  explicit ForwardingGroup(Group& to) : to_(to) {}
  int rank() const override { return to_.rank(); }
  int size() const override { return to_.size(); }
  std::string_view backend() const override { return to_.backend(); }
  std::span<const int> members() const override { return to_.members(); }
  void run(const CollectiveCall& call) override { to_.run(call); }
  void send(std::span<const std::byte> bytes, int to, std::optional<Deadline> deadline) override { to_.send(bytes, to, deadline); }
  void recv(std::span<std::byte> bytes, int from, std::optional<Deadline> deadline) override { to_.recv(bytes, from, deadline); }
  std::vector<std::vector<std::byte>> exchange(std::span<const std::byte> blob, std::optional<Deadline> deadline) override {
    return to_.exchange(blob, deadline);
  }
  std::unique_ptr<Group> split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline) override {
    return to_.split(lists, deadline);
  }
  void mark(std::int64_t step) override { to_.mark(step); }
  void throw_if_failed() override { to_.throw_if_failed(); }
  Progress progress(int rank) const override { return to_.progress(rank); }
  void abort(std::string_view reason) override { to_.abort(reason); }

 private:
  Group& to_;
};

}  // namespace tandem::test
