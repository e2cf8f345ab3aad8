// Small things that writer and reader of plans share.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace tandem {

inline constexpr std::array<std::string_view, 3> kValueKinds = {"input", "weight", "temporary"};

// 64 bits of a text; detects damage, not malice.
std::uint64_t text_digest(std::string_view text);

}  // namespace tandem
