// What a user is told where GPUs do not communicate with each other.
#pragma once

#include <fmt/format.h>

#include <string>

namespace tandem {

inline std::string through_host_notice(const std::string& why) {
  return fmt::format("collectives between the GPUs go through the host, for {}", why);
}

}  // namespace tandem
