#include "tandem/error.h"

#include <array>
#include <utility>

#include "core/check.h"

namespace tandem {
namespace {

std::string sentence(const std::string& message, const std::string& node, int rank) {
  std::string text = rank >= 0 ? "rank " + std::to_string(rank) + ": " : "";
  if (!node.empty()) text += "[" + node + "] ";
  return text + message;
}

}  // namespace

std::string_view to_string(ErrorCode code) {
  static constexpr std::array names = {"invalid_argument", "invalid_model", "unsupported", "invalid_engine", "mismatch",    "io",
                                       "out_of_memory",    "timeout",       "rank_failed", "aborted",        "interrupted", "internal"};
  static_assert(names.size() == static_cast<std::size_t>(ErrorCode::internal) + 1);
  return names.at(static_cast<std::size_t>(code));
}

Error::Error(ErrorCode code, const std::string& message, std::string node, int rank)
    : std::runtime_error(sentence(message, node, rank)), code_(code), message_(message), node_(std::move(node)), rank_(rank) {}

Error Error::at_node(const std::string& node) const { return node_.empty() ? Error(code_, message_, node, rank_) : *this; }

Error Error::at_rank(int rank) const { return rank_ < 0 ? Error(code_, message_, node_, rank) : *this; }

void check(bool holds, std::string_view what, std::source_location where) {
  if (holds) return;
  throw Error(ErrorCode::internal, "broken invariant, please report: " + std::string(what) + " (" + where.file_name() + ":" +
                                       std::to_string(where.line()) + ")");
}

}  // namespace tandem
