#include "device/code.h"

#include <fmt/format.h>

#include <charconv>

#include "core/digest.h"

namespace tandem {

std::string code_key(std::string_view text) { return fmt::format("{:016x}-{}", text_digest(text), text.size()); }

int sm_of_target(std::string_view target) {
  if (!target.starts_with("sm_")) return 0;
  int sm = 0;
  std::from_chars(target.data() + 3, target.data() + target.size(), sm);
  return sm;
}

}  // namespace tandem
