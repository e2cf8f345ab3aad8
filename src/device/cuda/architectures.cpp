#include "device/cuda/architectures.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "device/code.h"

namespace tandem::cuda {
namespace {

// "90a-real" in parts.
struct Kind {
  int sm = 0;
  char suffix = 0;  // 'a': for that GPU alone, 'f': for its generation alone, text too
  bool machine_code = true, text = true;
};

Kind parse(std::string_view word) {
  Kind kind;
  const char* end = std::from_chars(word.data(), word.data() + word.size(), kind.sm).ptr;
  const std::string_view rest = word.substr(static_cast<std::size_t>(end - word.data()));
  if (!rest.empty() && rest.front() != '-') kind.suffix = rest.front();
  kind.machine_code = !rest.ends_with("-virtual");
  kind.text = !rest.ends_with("-real");
  return kind;
}

bool has_machine_code(const Kind& kind, int sm) { return kind.machine_code && (kind.suffix == 'a' ? kind.sm == sm : runs_on(kind.sm, sm)); }

bool has_text(const Kind& kind, int sm) {
  return kind.text && (kind.suffix ? has_machine_code({kind.sm, kind.suffix}, sm) : kind.sm <= sm);
}

}  // namespace

int code_for(std::string_view architectures, int sm) {
  int machine_code = 0, text = 0;
  while (!architectures.empty()) {
    const Kind kind = parse(architectures.substr(0, architectures.find(',')));
    if (has_machine_code(kind, sm)) machine_code = std::max(machine_code, kind.sm);
    if (has_text(kind, sm)) text = std::max(text, kind.sm);
    const std::size_t next = architectures.find_first_of("0123456789", architectures.find(','));
    architectures = next == std::string_view::npos ? "" : architectures.substr(next);
  }
  return machine_code > 0 ? machine_code : text;
}

int kernels_for(int sm) { return code_for(TANDEM_KERNELS_FOR, sm); }

std::string architecture_for(std::span<const int> known, int sm) {
  const auto newer = std::ranges::upper_bound(known, sm);
  if (newer == known.begin()) return "";
  const int best = *std::prev(newer);
  return runs_on(best, sm) ? fmt::format("sm_{}", best) : fmt::format("compute_{}", best);
}

}  // namespace tandem::cuda
