// Small things that writer and reader of plans share.
#pragma once

#include <array>
#include <string_view>

namespace tandem {

inline constexpr std::array<std::string_view, 3> kValueKinds = {"input", "weight", "temporary"};

}  // namespace tandem
