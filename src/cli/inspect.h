// The report of `tandem inspect` as a page.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace tandem::cli {

// HTML of what Engine::describe() gives.
std::string inspect_page(const std::string& name, const nlohmann::json& report);

}  // namespace tandem::cli
