#include "passes/text_case.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "core/check.h"
#include "graph/text.h"

namespace tandem::testing {

TextCase read_case(const std::filesystem::path& folder, const std::string& name) {
  std::ifstream file(folder / (name + ".txt"));
  check(file.good(), "a readable case");
  TextCase out;
  std::string line;
  std::getline(file, line);
  out.given = line.substr(line.find(": ") + 2);
  for (std::string* side = &out.before; std::getline(file, line);) {
    if (line == "----") side = &out.after;
    else *side += line + "\n";
  }
  return out;
}

std::vector<std::string> case_names(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".txt") names.push_back(entry.path().stem().string());
  std::ranges::sort(names);
  return names;
}

std::string program_text(const Module& module) {
  std::stringstream lines(print(module));
  std::string text;
  for (std::string line; std::getline(lines, line);)
    if (!line.starts_with("source ")) text += line + "\n";
  return text;
}

}  // namespace tandem::testing
