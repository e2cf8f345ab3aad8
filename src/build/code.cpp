#include "build/code.h"

#include <algorithm>

#include "core/digest.h"
#include "device/code.h"
#include "tandem/error.h"

namespace tandem {
namespace {

std::vector<std::string> texts_of(const KernelDef& kernel, const OpCall& call, const SymbolValues& symbols) {
  try {
    return kernel.texts(call.bound(symbols));
  } catch (const Error&) {
    return {};  // a symbol without a typical value
  }
}

}  // namespace

void add_code(Plan& plan, const std::vector<Profile>& profiles, const KernelDef& kernel, const OpCall& call, int sm) {
  if (!kernel.texts || !can_compile_cuda()) return;
  for (const auto extent : {&SymbolRange::min, &SymbolRange::opt, &SymbolRange::max}) {
    SymbolValues symbols = coordinates(plan.mesh, 0);
    for (const Profile& profile : profiles)
      for (const auto& [name, range] : profile) symbols[name] = range.*extent;
    for (const std::string& text : texts_of(kernel, call, symbols)) {
      std::string key = text_key(text);
      const auto same = [&](const StoredCode& code) { return code.text == key && code.sm == sm; };
      if (std::ranges::none_of(plan.code, same)) plan.code.push_back(stored_code(std::move(key), sm, compile_cuda(text, sm)));
    }
  }
}

}  // namespace tandem
