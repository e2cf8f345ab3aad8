// The pieces of an engine's report (Engine::describe) as people read them, in text and on a page.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace tandem::cli {

// A string as it is, anything else as JSON.
std::string text(const nlohmann::json& value);
// A list, with commas.
std::string joined(const nlohmann::json& list);
// "12.3 MiB".
std::string size_text(const nlohmann::json& bytes);
// "batch=8, sequence=128"; "the fixed shapes" where nothing is dynamic.
std::string symbols_text(const nlohmann::json& report);
// The kernel of a step with its time, and what was tried instead or why not.
std::string kernel_choice(const nlohmann::json& step);
std::string collective_name(const nlohmann::json& use);
// The mesh axis of a collective, or its groups.
std::string ranks_of(const nlohmann::json& use);

// One page that needs nothing else; appears whole or not at all. Throws Error(io).
void write_html(const std::string& path, const std::string& title, const nlohmann::json& report);

}  // namespace tandem::cli
