#include "comm/peer/links.h"

#include <fcntl.h>
#include <poll.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "core/check.h"

namespace tandem::peer {
namespace {

using shm::MeetingSocket;

struct Message {
  enum class Word : std::int32_t { hello, descriptor, leaves };
  Word word = Word::hello;
  std::int32_t rank = -1;
};

std::uint64_t draw() {
  std::random_device random;
  return static_cast<std::uint64_t>(random()) << 32 | random();
}

std::uint64_t this_process() {
  static const std::uint64_t number = draw();
  return number;
}

template <typename T>
T value_of(const std::vector<std::byte>& blob) {
  check(blob.size() == sizeof(T), "ranks exchange what they should");
  T value;
  std::memcpy(&value, blob.data(), sizeof value);
  return value;
}

// False once the deadline has passed.
bool await_readable(int fd, Deadline deadline) {
  pollfd poller = {fd, POLLIN, 0};
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline.remaining()).count();
    const int ready = poll(&poller, 1, static_cast<int>(left));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

Message receive(MeetingSocket& socket, Deadline deadline, Descriptor* descriptor = nullptr) {
  while (!deadline.expired()) {
    if (auto message = socket.receive<Message>(descriptor)) return *message;
    if (socket.ended()) fail(ErrorCode::rank_failed, "a rank left while the ranks exchanged memory");
    await_readable(socket.fd(), deadline);
  }
  fail(ErrorCode::timeout, "a rank did not answer while the ranks exchanged memory");
}

}  // namespace

void agree(Group& group, const std::optional<Error>& trouble, Deadline deadline) {
  constexpr char kMemory = 'm', kOther = '-';
  std::string mine;
  if (trouble) mine = (trouble->code() == ErrorCode::out_of_memory ? kMemory : kOther) + trouble->message();
  const auto texts = group.exchange(std::as_bytes(std::span(mine)), deadline);
  for (std::size_t r = 0; r < texts.size(); ++r) {
    const std::string_view text(reinterpret_cast<const char*>(texts[r].data()), texts[r].size());
    if (!text.empty())
      fail(text[0] == kMemory ? ErrorCode::out_of_memory : ErrorCode::unsupported, "rank {}: {}", group.members()[r], text.substr(1));
  }
}

Links::Links(Group& group, Deadline deadline) : rank_(group.rank()), peers_(static_cast<std::size_t>(group.size())) {
  struct Offer {
    std::uint64_t process, door;
  };
  const Offer mine = {this_process(), draw()};
  const auto name_of = [](std::uint64_t door) { return fmt::format("tandem-peer-{:016x}", door); };
  MeetingSocket door;
  all_do(group, deadline, [&] {
    door = MeetingSocket::listen(name_of(mine.door));
    if (!door) fail(ErrorCode::io, "another process listens where this one wants to");
  });
  std::vector<std::string> names;
  for (const auto& blob : group.exchange(std::as_bytes(std::span(&mine, 1)), deadline)) {
    const auto offer = value_of<Offer>(blob);
    processes_.push_back(offer.process);
    names.push_back(name_of(offer.door));
  }
  all_do(group, deadline, [&] { meet(names, door, deadline); });
}

// Lower ranks are called, higher ones come.
void Links::meet(const std::vector<std::string>& names, MeetingSocket& door, Deadline deadline) {
  int to_come = 0;
  for (int r = 0; r < static_cast<int>(names.size()); ++r) {
    if (is_here(r)) continue;
    if (r > rank_) {
      ++to_come;
      continue;
    }
    peer(r).socket = MeetingSocket::connect(names[static_cast<std::size_t>(r)]);
    if (!peer(r).socket || !peer(r).socket.send(Message{Message::Word::hello, rank_}))
      fail(ErrorCode::io, "cannot reach the process of rank {} of the group", r);
  }
  while (to_come > 0) {
    if (!await_readable(door.fd(), deadline)) fail(ErrorCode::timeout, "{} ranks did not come to exchange memory", to_come);
    MeetingSocket guest = door.accept();
    if (!guest || guest.peer().user != geteuid()) continue;
    const int rank = receive(guest, deadline).rank;
    if (rank <= rank_ || rank >= static_cast<int>(names.size()) || peer(rank).socket) continue;
    peer(rank).socket = std::move(guest);
    --to_come;
  }
}

std::vector<Descriptor> Links::exchange(Group& group, int descriptor, Deadline deadline) {
  std::vector<Descriptor> descriptors(peers_.size());
  const auto numbers = group.exchange(std::as_bytes(std::span(&descriptor, 1)), deadline);
  all_do(group, deadline, [&] {
    for (Peer& peer : peers_)
      if (peer.socket && !peer.socket.send(Message{Message::Word::descriptor, rank_}, descriptor))
        fail(ErrorCode::io, "cannot send a descriptor: {}", std::strerror(errno));
    for (std::size_t r = 0; r < peers_.size(); ++r) {
      if (peers_[r].socket) {
        receive(peers_[r].socket, deadline, &descriptors[r]);
      } else {
        descriptors[r] = Descriptor(fcntl(value_of<int>(numbers[r]), F_DUPFD_CLOEXEC, 0));
      }
      if (!descriptors[r]) fail(ErrorCode::io, "no descriptor came from rank {} of the group", r);
    }
  });
  return descriptors;
}

void Links::leave() noexcept {
  for (Peer& peer : peers_)
    if (peer.socket) peer.socket.send(Message{Message::Word::leaves, rank_});
}

int Links::departed(int milliseconds) {
  std::vector<pollfd> pollers;
  std::vector<int> ranks;
  for (int r = 0; r < static_cast<int>(peers_.size()); ++r) {
    if (!peer(r).socket || peer(r).left) continue;
    pollers.push_back({peer(r).socket.fd(), POLLIN, 0});
    ranks.push_back(r);
  }
  if (poll(pollers.data(), pollers.size(), milliseconds) <= 0) return -1;
  for (std::size_t i = 0; i < pollers.size(); ++i) {
    if (pollers[i].revents == 0) continue;
    Peer& from = peer(ranks[i]);
    if (const auto message = from.socket.receive<Message>()) from.left = message->word == Message::Word::leaves;
    else if (from.socket.ended()) {
      from.left = true;
      return ranks[i];
    }
  }
  return -1;
}

}  // namespace tandem::peer
