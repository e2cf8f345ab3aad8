#include "comm/shm/meeting_socket.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "core/check.h"

namespace tandem::shm {
namespace {

constexpr int kQueue = 512;

tandem::Descriptor new_socket() {
  tandem::Descriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) fail(ErrorCode::io, "cannot make a socket: {}", std::strerror(errno));
  return socket;
}

struct Address {
  sockaddr_un value{};
  socklen_t length = 0;

  explicit Address(const std::string& name) {
    check(name.size() + 1 < sizeof value.sun_path, "the name of a meeting is short");
    value.sun_family = AF_UNIX;
    std::memcpy(value.sun_path + 1, name.data(), name.size());  // the empty first byte makes it an abstract name
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&value); }
};

}  // namespace

MeetingSocket MeetingSocket::listen(const std::string& name) {
  tandem::Descriptor socket = new_socket();
  const Address address(name);
  if (::bind(socket.get(), address.get(), address.length) == 0 && ::listen(socket.get(), kQueue) == 0)
    return MeetingSocket(std::move(socket));
  if (errno == EADDRINUSE) return MeetingSocket();
  fail(ErrorCode::io, "cannot listen for other ranks: {}", std::strerror(errno));
}

MeetingSocket MeetingSocket::connect(const std::string& name) {
  tandem::Descriptor socket = new_socket();
  const Address address(name);
  if (::connect(socket.get(), address.get(), address.length) == 0) return MeetingSocket(std::move(socket));
  if (errno == ECONNREFUSED || errno == EAGAIN || errno == EINTR || errno == EPROTOTYPE) return MeetingSocket();
  fail(ErrorCode::io, "cannot reach rank 0: {}", std::strerror(errno));
}

MeetingSocket MeetingSocket::accept() const {
  return MeetingSocket(tandem::Descriptor(::accept4(fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)));
}

PeerProcess MeetingSocket::peer() const {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(fd(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return {};
  return {peer.pid, peer.uid};
}

bool MeetingSocket::send_bytes(const void* data, std::size_t size, int descriptor) const {
  iovec part = {const_cast<void*>(data), size};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof descriptor)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (descriptor >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof descriptor);
    std::memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
  }
  return ::sendmsg(fd(), &message, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
}

bool MeetingSocket::receive_bytes(void* data, std::size_t size, tandem::Descriptor* descriptor) {
  iovec part = {data, size};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = ::recvmsg(fd(), &message, MSG_CMSG_CLOEXEC);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return false;
  tandem::Descriptor came;
  for (cmsghdr* part_of = CMSG_FIRSTHDR(&message); got > 0 && part_of; part_of = CMSG_NXTHDR(&message, part_of)) {
    if (part_of->cmsg_level != SOL_SOCKET || part_of->cmsg_type != SCM_RIGHTS) continue;
    int number = -1;
    std::memcpy(&number, CMSG_DATA(part_of), sizeof number);
    came = tandem::Descriptor(number);
  }
  if (descriptor) *descriptor = std::move(came);
  ended_ = got != static_cast<ssize_t>(size) || (message.msg_flags & MSG_TRUNC) != 0;
  return !ended_;
}

}  // namespace tandem::shm
