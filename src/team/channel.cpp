#include "team/channel.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"

namespace tandem {
namespace {

constexpr std::uint32_t kMessageLimit = 1u << 28;
constexpr std::size_t kMostDescriptors = 8, kPiece = 64 << 10;

// True once the socket is ready for `events`, or has something to say about its end.
bool wait_for(int fd, short events, std::optional<std::chrono::nanoseconds> limit) {
  const auto milliseconds = limit ? std::chrono::ceil<std::chrono::milliseconds>(*limit).count() : -1;
  pollfd ready{fd, events, 0};
  return ::poll(&ready, 1, static_cast<int>(milliseconds)) > 0;
}

struct Header {
  std::uint32_t bytes = 0, descriptors = 0;
};

}  // namespace

std::pair<Descriptor, Descriptor> Channel::make_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    fail(ErrorCode::io, "cannot make a socket pair: {}", std::strerror(errno));
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

bool Channel::send(const nlohmann::json& body, std::span<const int> descriptors, Deadline deadline) {
  check(descriptors.size() <= kMostDescriptors, "few descriptors per message");
  const std::string text = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const Header header{static_cast<std::uint32_t>(text.size()), static_cast<std::uint32_t>(descriptors.size())};
  const std::string bytes = std::string(reinterpret_cast<const char*>(&header), sizeof header) + text;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMostDescriptors)] = {};
  for (std::size_t at = 0; at < bytes.size();) {
    iovec piece{const_cast<char*>(bytes.data()) + at, bytes.size() - at};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (at == 0 && !descriptors.empty()) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
      std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
    }
    const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) at += static_cast<std::size_t>(sent);
    else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      if (deadline.expired()) return false;
      wait_for(socket_.get(), POLLOUT, deadline.remaining());
    } else if (sent == 0 || errno != EINTR) return false;
  }
  return true;
}

void Channel::read_some() {
  const std::size_t had = received_.size();
  received_.resize(had + kPiece);
  iovec piece{received_.data() + had, kPiece};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMostDescriptors)];
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  const int error = errno;
  received_.resize(had + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  if (got == 0 || (got < 0 && error != EAGAIN && error != EWOULDBLOCK && error != EINTR)) closed_ = true;
  if (got <= 0) return;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t i = 0; i < (part->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      descriptors_.emplace_back(fd);
    }
  }
}

std::optional<Message> Channel::take() {
  Header header;
  if (received_.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, received_.data(), sizeof header);
  const bool possible = header.bytes <= kMessageLimit && header.descriptors <= kMostDescriptors;
  if (possible && received_.size() < sizeof header + header.bytes) return std::nullopt;
  Message message;
  if (possible)
    message.body = nlohmann::json::parse(received_.data() + sizeof header, received_.data() + sizeof header + header.bytes, nullptr, false);
  if (!possible || message.body.is_discarded() || descriptors_.size() < header.descriptors) {
    closed_ = true;  // nothing that follows can be understood
    return std::nullopt;
  }
  received_.erase(0, sizeof header + header.bytes);
  for (std::uint32_t i = 0; i < header.descriptors; ++i) message.descriptors.push_back(std::move(descriptors_[i]));
  descriptors_.erase(descriptors_.begin(), descriptors_.begin() + header.descriptors);
  return message;
}

std::optional<Message> Channel::receive(std::optional<std::chrono::nanoseconds> limit) {
  const std::int64_t end = limit ? monotonic_ns() + limit->count() : 0;
  for (;;) {
    if (auto message = take()) return message;
    if (closed_) return std::nullopt;
    std::optional<std::chrono::nanoseconds> rest;
    if (limit) rest = std::chrono::nanoseconds(std::max<std::int64_t>(0, end - monotonic_ns()));
    if (wait_for(socket_.get(), POLLIN, rest)) read_some();
    else if (limit && monotonic_ns() >= end) return take();
  }
}

}  // namespace tandem
