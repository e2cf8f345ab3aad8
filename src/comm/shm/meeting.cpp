#include "comm/shm/meeting.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "core/check.h"
#include "core/stop.h"

namespace tandem {
namespace {

constexpr std::chrono::nanoseconds kSlice = std::chrono::milliseconds(20);

struct Hello {
  std::int32_t rank, size;
};
enum class Answer : std::int32_t { welcome, other_size, no_such_rank, taken };

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {
    if (fd < 0) fail(ErrorCode::io, "cannot make a socket: {}", std::strerror(errno));
  }
  ~Socket() { ::close(fd_); }
  Socket(const Socket&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

int new_socket() { return ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); }

struct Address {
  sockaddr_un value{};
  socklen_t length = 0;
  explicit Address(const std::string& name) {
    // The empty first byte makes it a name that no file has and that goes away with its last user.
    const std::string text = fmt::format("tandem.{}.{:016x}", ::getuid(), std::hash<std::string>()(name));
    value.sun_family = AF_UNIX;
    std::memcpy(value.sun_path + 1, text.data(), text.size());
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&value); }
};

bool same_user(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == ::getuid();
}

void throw_if_stopped() {
  if (StopScope::wanted()) throw Error(ErrorCode::interrupted, "interrupted while waiting for the other ranks");
}

// False once the deadline has passed.
bool readable(int fd, Deadline deadline) {
  while (!deadline.expired()) {
    throw_if_stopped();
    pollfd poller = {fd, POLLIN, 0};
    if (::poll(&poller, 1, static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(kSlice).count())) > 0) return true;
  }
  return false;
}

void answer(int fd, Answer what, int descriptor) {
  iovec part = {&what, sizeof what};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{.msg_iov = &part, .msg_iovlen = 1};
  if (descriptor >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
  }
  ::sendmsg(fd, &message, MSG_NOSIGNAL);  // a rank that is gone shows when it does not join
}

std::shared_ptr<ShmRegion> host(const std::string& name, int size, Deadline deadline) {
  const Socket listener(new_socket());
  const Address address(name);
  if (::bind(listener.get(), address.get(), address.length) != 0 || ::listen(listener.get(), 1024) != 0)
    fail(ErrorCode::io, "cannot wait for the other ranks under the name '{}': {}", name, std::strerror(errno));
  auto region = ShmRegion::create(size);
  std::vector<bool> came(static_cast<std::size_t>(size), false);
  came[0] = true;
  for (int missing = size - 1; missing > 0;) {
    if (!readable(listener.get(), deadline)) break;
    const Socket peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    Hello hello{};
    if (!same_user(peer.get()) || !readable(peer.get(), deadline) || ::recv(peer.get(), &hello, sizeof hello, MSG_DONTWAIT) != sizeof hello) continue;
    const bool known = hello.rank > 0 && hello.rank < size;
    if (hello.size == size && known && !came[static_cast<std::size_t>(hello.rank)]) {
      came[static_cast<std::size_t>(hello.rank)] = true;
      --missing;
      answer(peer.get(), Answer::welcome, region->fd());
      continue;
    }
    answer(peer.get(), hello.size != size ? Answer::other_size : known ? Answer::taken : Answer::no_such_rank, -1);
    const std::string why = hello.size != size ? fmt::format("it says that there are {} ranks, rank 0 says {}", hello.size, size)
                                               : fmt::format("two processes say that they are rank {} of {}", hello.rank, size);
    region->abort(ErrorCode::mismatch, hello.rank, why);
    throw Error(ErrorCode::mismatch, why, {}, hello.rank);
  }
  for (int rank = 0; rank < size; ++rank) {
    if (came[static_cast<std::size_t>(rank)]) continue;
    const auto seconds = std::chrono::duration<double>(deadline.limit()).count();
    region->abort(ErrorCode::timeout, rank, fmt::format("it did not join within {:.1f} s", seconds));
    throw Error(ErrorCode::timeout, fmt::format("it did not join within {:.1f} s", seconds), {}, rank);
  }
  return region;
}

std::shared_ptr<ShmRegion> receive_region(int fd, int rank, int size) {
  Answer what{};
  iovec part = {&what, sizeof what};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  if (::recvmsg(fd, &message, MSG_CMSG_CLOEXEC) != sizeof what) throw Error(ErrorCode::rank_failed, "it ended while the ranks met", {}, 0);
  if (what == Answer::other_size) fail(ErrorCode::mismatch, "rank {} was told of {} ranks, rank 0 of another number", rank, size);
  if (what != Answer::welcome) fail(ErrorCode::mismatch, "two processes say that they are rank {} of {}", rank, size);
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (!header || header->cmsg_type != SCM_RIGHTS) fail(ErrorCode::internal, "rank 0 sent no memory");
  int descriptor = -1;
  std::memcpy(&descriptor, CMSG_DATA(header), sizeof descriptor);
  const Socket owner(descriptor);
  return ShmRegion::open(descriptor);
}

std::shared_ptr<ShmRegion> visit(const std::string& name, int rank, int size, Deadline deadline) {
  const Address address(name);
  while (!deadline.expired()) {
    throw_if_stopped();
    const Socket socket(new_socket());
    if (::connect(socket.get(), address.get(), address.length) != 0) {
      if (errno != ECONNREFUSED && errno != EAGAIN && errno != EINTR) fail(ErrorCode::io, "cannot reach rank 0 under the name '{}': {}", name, std::strerror(errno));
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      continue;
    }
    if (!same_user(socket.get())) fail(ErrorCode::io, "another user has taken the name '{}'", name);
    const Hello hello{rank, size};
    if (::send(socket.get(), &hello, sizeof hello, MSG_NOSIGNAL) != sizeof hello) continue;
    if (!readable(socket.get(), deadline)) break;
    return receive_region(socket.get(), rank, size);
  }
  throw Error(ErrorCode::timeout, fmt::format("it did not join within {:.1f} s", std::chrono::duration<double>(deadline.limit()).count()), {}, 0);
}

}  // namespace

std::shared_ptr<ShmRegion> meet(const std::string& name, int rank, int size, Deadline deadline) {
  return rank == 0 ? host(name, size, deadline) : visit(name, rank, size, deadline);
}

}  // namespace tandem
