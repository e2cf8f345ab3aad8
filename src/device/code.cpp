#include "device/code.h"

#include <charconv>

namespace tandem {

int sm_of_target(std::string_view target) {
  if (!target.starts_with("sm_")) return 0;
  int sm = 0;
  std::from_chars(target.data() + 3, target.data() + target.size(), sm);
  return sm;
}

}  // namespace tandem
