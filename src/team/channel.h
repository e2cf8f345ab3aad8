// Channel: messages with file descriptors between the leader of a team and one rank process.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/descriptor.h"
#include "tandem/deadline.h"

namespace tandem {

struct Message {
  nlohmann::json body;
  std::vector<Descriptor> descriptors;
};

// Serves one thread at a time. Messages are not trusted to be whole: a peer may end or stop in the middle of one.
class Channel {
 public:
  explicit Channel(Descriptor socket) : socket_(std::move(socket)) {}
  // Both ends; they close on exec. Throws Error(io).
  static std::pair<Descriptor, Descriptor> make_pair();

  // False if the other side is gone, or does not read within `deadline`; the channel is then of no more use.
  bool send(const nlohmann::json& body, std::span<const int> descriptors, Deadline deadline);
  // The next message, if a whole one came within `limit` (no limit: waits until the other side ends).
  std::optional<Message> receive(std::optional<std::chrono::nanoseconds> limit);
  // The other side is gone, and all that it sent was received.
  bool closed() const { return closed_; }

 private:
  std::optional<Message> take();
  void read_some();

  Descriptor socket_;
  std::string received_;
  std::vector<Descriptor> descriptors_;  // came with the bytes received
  bool closed_ = false;
};

}  // namespace tandem
