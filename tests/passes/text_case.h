// Cases in files: a line `WORD: …`, a module as text, a line `----`, and the module expected.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace tandem::testing {

struct TextCase {
  std::string given;  // what follows the first line's colon and space
  std::string before, after;
};

// NAME.txt of the folder.
TextCase read_case(const std::filesystem::path& folder, const std::string& name);
// NAME of every NAME.txt in the folder, sorted.
std::vector<std::string> case_names(const std::filesystem::path& folder);
// The printed module less the data of its sources.
std::string program_text(const Module& module);

}  // namespace tandem::testing
