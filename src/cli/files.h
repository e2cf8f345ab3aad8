// Text files that appear whole or not at all.
#pragma once

#include <string>

namespace tandem::cli {

// Replaces `path`. Throws Error(io) naming it, and leaves what was there before.
void write_text(const std::string& path, const std::string& text);

}  // namespace tandem::cli
