// What is checked of JSON text before a parser sees it.
#pragma once

#include <cstddef>
#include <string_view>

#include "tandem/error.h"

namespace tandem {

// Throws Error(`damaged`) where brackets nest deeper than `limit`; `what` names the text.
void check_json_depth(std::string_view text, std::size_t limit, std::string_view what, ErrorCode damaged);

}  // namespace tandem
