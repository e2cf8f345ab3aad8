// Two ways to refuse: fail() for the user's mistake or environment, check() for our own bugs.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <source_location>
#include <string>
#include <string_view>
#include <utility>

#include "tandem/error.h"

namespace tandem {

// Throws Error(code) with a formatted message: fail(ErrorCode::io, "cannot open {}: {}", path, reason).
template <typename... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

// Throws Error(internal) naming file and line unless `holds`.
void check(bool holds, std::string_view what, std::source_location where = std::source_location::current());

}  // namespace tandem
