#include "comm/tcp_pair.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "core/check.h"

namespace tandem::test {
namespace {

int milliseconds(Deadline deadline) {
  return static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(deadline.remaining()).count());
}

Descriptor new_socket() { return Descriptor(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

Descriptor accept_one(const sockaddr_in& place, Deadline deadline) {
  const Descriptor listener = new_socket();
  const int yes = 1;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  check(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&place), sizeof place) == 0 && ::listen(listener.get(), 1) == 0,
        "the test can listen");
  pollfd poller = {listener.get(), POLLIN, 0};
  if (::poll(&poller, 1, milliseconds(deadline)) <= 0) fail(ErrorCode::timeout, "nobody came");
  return Descriptor(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
}

Descriptor connect_to(const sockaddr_in& place, Deadline deadline) {
  for (; !deadline.expired(); std::this_thread::sleep_for(std::chrono::milliseconds(10))) {
    Descriptor socket = new_socket();
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&place), sizeof place) == 0) return socket;
  }
  fail(ErrorCode::timeout, "rank 0 did not come");
}

}  // namespace

std::unique_ptr<TcpPair> TcpPair::meet(int rank, const std::string& address, int port, Deadline deadline) {
  sockaddr_in place{};
  place.sin_family = AF_INET;
  place.sin_port = htons(static_cast<std::uint16_t>(port));
  check(::inet_pton(AF_INET, address.c_str(), &place.sin_addr) == 1, "an address");
  auto wire = std::make_shared<Wire>();
  wire->socket = rank == 0 ? accept_one(place, deadline) : connect_to(place, deadline);
  wire->here = rank;
  return std::unique_ptr<TcpPair>(new TcpPair(std::move(wire), {0, 1}, rank));
}

void TcpPair::end(const Error& error) {
  const std::lock_guard lock(wire_->mutex);
  if (!wire_->ended) wire_->ended = error;
  ::shutdown(wire_->socket.get(), SHUT_RDWR);  // so that the other one hears of it
  throw *wire_->ended;
}

void TcpPair::throw_if_failed() {
  {
    const std::lock_guard lock(wire_->mutex);
    if (wire_->ended) throw *wire_->ended;
  }
  char byte = 0;
  const ssize_t waiting = ::recv(wire_->socket.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (waiting == 0 || (waiting < 0 && errno != EAGAIN && errno != EINTR))
    end(Error(ErrorCode::rank_failed, "its connection has ended", {}, 1 - wire_->here));
}

void TcpPair::abort(std::string_view reason) {
  try {
    end(Error(ErrorCode::aborted, fmt::format("aborted: {}", reason), {}, wire_->here));
  } catch (const Error&) {  // is for later calls
  }
}

void TcpPair::move(std::span<const std::byte> out, std::span<std::byte> in, Deadline deadline) {
  while (!out.empty() || !in.empty()) {
    throw_if_failed();
    pollfd poller = {wire_->socket.get(), static_cast<short>((out.empty() ? 0 : POLLOUT) | (in.empty() ? 0 : POLLIN)), 0};
    if (deadline.expired()) end(Error(ErrorCode::timeout, "nothing came from it", {}, 1 - wire_->here));
    if (::poll(&poller, 1, std::min(20, milliseconds(deadline) + 1)) <= 0) continue;
    if (poller.revents & POLLIN) {
      const ssize_t got = ::recv(wire_->socket.get(), in.data(), in.size(), MSG_DONTWAIT);
      if (got > 0) in = in.subspan(static_cast<std::size_t>(got));
    }
    if (poller.revents & POLLOUT) {
      const ssize_t sent = ::send(wire_->socket.get(), out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent > 0) out = out.subspan(static_cast<std::size_t>(sent));
    }
  }
}

std::vector<std::vector<std::byte>> TcpPair::exchange(std::span<const std::byte> blob, std::optional<Deadline> deadline) {
  std::vector<std::vector<std::byte>> blobs(members_.size());
  blobs[static_cast<std::size_t>(rank_)].assign(blob.begin(), blob.end());
  if (size() == 1) return blobs;
  const Deadline limit = deadline ? *deadline : Deadline::after(kRendezvousDeadline);
  const std::uint64_t mine = blob.size();
  std::uint64_t theirs = 0;
  move(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(&theirs, 1)), limit);
  auto& other = blobs[static_cast<std::size_t>(1 - rank_)];
  other.resize(theirs);
  move(blob, other, limit);
  return blobs;
}

std::unique_ptr<Group> TcpPair::split(const std::vector<std::vector<int>>& lists, std::optional<Deadline> deadline) {
  exchange({}, deadline);
  for (const std::vector<int>& list : lists) {
    const auto found = std::ranges::find(list, rank_);
    if (found == list.end()) continue;
    std::vector<int> members;
    for (const int r : list) members.push_back(members_.at(static_cast<std::size_t>(r)));
    return std::unique_ptr<Group>(new TcpPair(wire_, std::move(members), static_cast<int>(found - list.begin())));
  }
  return nullptr;
}

void TcpPair::run(const CollectiveCall& call) { fail(ErrorCode::unsupported, "{} over TCP", to_string(call)); }
void TcpPair::send(std::span<const std::byte>, int, std::optional<Deadline>) { fail(ErrorCode::unsupported, "send over TCP"); }
void TcpPair::recv(std::span<std::byte>, int, std::optional<Deadline>) { fail(ErrorCode::unsupported, "recv over TCP"); }

}  // namespace tandem::test
