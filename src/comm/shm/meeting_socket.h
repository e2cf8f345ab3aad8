// MeetingSocket: whole messages, some with a descriptor, between processes of one host that know a common name.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "core/descriptor.h"

namespace tandem::shm {

// What a rank says when it comes, and when it leaves because its deadline has passed or its caller interrupted it.
struct Hello {
  enum class Word : std::int32_t { comes, waited_enough, interrupted };
  std::uint64_t magic = 0;
  std::uint32_t version = 0;
  std::int32_t rank = 0, size = 0;
  Word word = Word::comes;
  std::int64_t waited_ns = 0;
};

// What rank 0 says: who is missing, that all are there (with the descriptor of the common memory), or why there will be no group.
struct Answer {
  enum class Word : std::int32_t { waiting, welcome, refused };
  Word word = Word::waiting;
  std::int32_t code = 0, rank = -1;  // of the error
  char text[1000] = {};
};

struct PeerProcess {
  pid_t process = -1;
  uid_t user = 0;
};

// Never waits. Names live in the abstract namespace: no file, gone with the socket.
class MeetingSocket {
 public:
  explicit MeetingSocket(tandem::Descriptor socket = tandem::Descriptor()) : socket_(std::move(socket)) {}
  // Listens; empty if another socket does so under this name. Throws Error(io).
  static MeetingSocket listen(const std::string& name);
  // Empty if nobody listens, or the queue is full. Throws Error(io).
  static MeetingSocket connect(const std::string& name);
  // The next that came; empty if there is none.
  MeetingSocket accept() const;

  explicit operator bool() const { return static_cast<bool>(socket_); }
  int fd() const { return socket_.get(); }
  // Who is, or was, on the other side.
  PeerProcess peer() const;

  // False if the other side is gone or does not read.
  template <typename Message>
  bool send(const Message& message, int descriptor = -1) const {
    return send_bytes(&message, sizeof message, descriptor);
  }
  // The next message, if there is one; one of another size counts as the end.
  template <typename Message>
  std::optional<Message> receive(tandem::Descriptor* descriptor = nullptr) {
    Message message;
    return receive_bytes(&message, sizeof message, descriptor) ? std::optional(message) : std::nullopt;
  }
  // The other side is gone, or talks another language.
  bool ended() const { return ended_; }

 private:
  bool send_bytes(const void* data, std::size_t size, int descriptor) const;
  bool receive_bytes(void* data, std::size_t size, tandem::Descriptor* descriptor);

  tandem::Descriptor socket_;
  bool ended_ = false;
};

}  // namespace tandem::shm
