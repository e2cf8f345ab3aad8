// Where ranks meet: HOST:PORT, and whether that is this host.
#pragma once

#include <string>

namespace tandem {

struct Address {
  std::string host;  // without brackets
  int port = 0;
};

// "HOST:PORT" or "[IPV6]:PORT". Throws Error(invalid_argument).
Address parse_address(const std::string& text);

// Throws Error(unsupported) if `host` is another one than this, Error(io) if it cannot be looked up. May ask name servers.
void require_this_host(const std::string& host);

}  // namespace tandem
