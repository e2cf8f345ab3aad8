#include "core/digest.h"

#include <fmt/format.h>

namespace tandem {

std::uint64_t text_digest(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a: every change of one byte changes it
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

std::string text_key(std::string_view text) { return fmt::format("{:016x}-{}", text_digest(text), text.size()); }

}  // namespace tandem
