#include "comm/address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <memory>

#include "core/check.h"
#include "core/descriptor.h"
#include "tandem/host.h"

namespace tandem {
namespace {

// Only an address of this host can be bound to.
bool is_own(const addrinfo& address) {
  const Descriptor socket(::socket(address.ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  return socket && ::bind(socket.get(), address.ai_addr, address.ai_addrlen) == 0;
}

}  // namespace

Address parse_address(const std::string& text) {
  const auto refuse = [&] {
    fail(ErrorCode::invalid_argument, "'{}' is no address, expected HOST:PORT with a port from 0 to 65535", text);
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) refuse();
  Address address{text.substr(0, colon), -1};
  const auto [end, error] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), address.port);
  if (error != std::errc{} || end != text.data() + text.size() || address.port < 0 || address.port > 65535) refuse();
  std::string& host = address.host;
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  else if (host.find(':') != std::string::npos) refuse();
  if (host.empty()) refuse();
  return address;
}

void require_this_host(const std::string& host) {
  const std::string own = this_host().name;
  if (host == "localhost" || host == "127.0.0.1" || host == "::1" || host == own) return;
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* list = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &list); error != 0)
    fail(ErrorCode::io, "cannot look up the host '{}', where rank 0 should be: {}", host, ::gai_strerror(error));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(list, ::freeaddrinfo);
  for (const addrinfo* one = list; one; one = one->ai_next)
    if (is_own(*one)) return;
  fail(ErrorCode::unsupported,
       "rank 0 should be on the host '{}', this is '{}': ranks on more than one host are not supported yet, start all of them on one; on "
       "GPUs "
       "a communicator of NCCL that they made can be given to contexts (group_from_nccl)",
       host, own);
}

}  // namespace tandem
