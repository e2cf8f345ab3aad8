// Digests of texts and bytes: they find damage and tell things apart, and are no defence against malice.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem {

// 64 bits.
std::uint64_t text_digest(std::string_view text);
// Names a text: its digest and length.
std::string text_key(std::string_view text);

}  // namespace tandem
