// "{rank}" in the name of a file: one file per rank.
#pragma once

#include <string>

namespace tandem {

inline constexpr std::string_view kRankWord = "{rank}";

inline bool is_per_rank(const std::string& path) { return path.find(kRankWord) != std::string::npos; }

// The file of one rank; `path` itself where it names none.
inline std::string path_of_rank(std::string path, int rank) {
  const std::size_t at = path.find(kRankWord);
  return at == std::string::npos ? path : path.replace(at, kRankWord.size(), std::to_string(rank));
}

}  // namespace tandem
