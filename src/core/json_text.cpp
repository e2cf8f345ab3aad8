#include "core/json_text.h"

#include "core/check.h"

namespace tandem {

void check_json_depth(std::string_view text, std::size_t limit, std::string_view what, ErrorCode damaged) {
  std::size_t depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      else if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > limit) fail(damaged, "{} is nested more than {} deep", what, limit);
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
}

}  // namespace tandem
