// Whether an address that somebody gave leads anywhere.
#pragma once

#include <cstddef>

namespace tandem {

// True if this process can read `bytes` (at most 4096) there now. Asks the system, which looks without a fault. Throws Error(io) where it
// cannot be asked.
bool is_readable(const void* address, std::size_t bytes);

}  // namespace tandem
