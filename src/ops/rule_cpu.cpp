#include "ops/rule_cpu.h"

#include <algorithm>

#include "core/check.h"

namespace tandem {
namespace {

std::int64_t sent(const KernelDef& kernel, const OpCall& call, const SymbolValues& typical) {
  if (!kernel.sent_bytes) return 0;
  const Dim bytes = kernel.sent_bytes(call);
  std::set<std::string> symbols;
  bytes.collect_symbols(symbols);
  SymbolValues values = typical;
  for (const std::string& symbol : symbols) values.try_emplace(symbol, kTypicalExtent);
  return bytes.evaluate(values);
}

}  // namespace

const KernelDef* choose_by_rule(std::span<const KernelDef* const> able, const OpCall& call, const SymbolValues& typical) {
  check(!able.empty(), "a kernel can run it");
  return *std::ranges::min_element(able, {}, [&](const KernelDef* kernel) { return sent(*kernel, call, typical); });
}

const KernelDef* kernel_by_rule(const OpCall& call, std::string_view device) {
  std::vector<const KernelDef*> own, any;
  for (const KernelDef* kernel : kernels_of(call.op->name, device))
    if (!refusal(*kernel, call)) (kernel->op.empty() ? any : own).push_back(kernel);
  if (own.empty() && any.empty()) return nullptr;
  return choose_by_rule(own.empty() ? any : own, call, {});
}

}  // namespace tandem
