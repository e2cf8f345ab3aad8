#include "runtime/fingerprint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace tandem {
namespace {

// FNV-1a, 64 bits.
class Hash {
 public:
  void add(std::string_view text) {
    for (const char c : text) value_ = (value_ ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    value_ = (value_ ^ 0xff) * 0x100000001b3;
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325;
};

void add_collectives(Hash& hash, const Plan& plan) {
  for (const CollectiveUse& use : plan.collectives)
    hash.add(fmt::format("{} {} {} {} {} {}", use.operation, use.reduce, to_string(use.dtype), use.count.to_string(), use.axis, use.root));
}

}  // namespace

std::uint64_t plan_fingerprint(const Plan& plan) {
  Hash hash;
  hash.add(plan.mesh.to_string());
  for (const Program& program : plan.programs) {
    hash.add(program.name);
    for (const PlanValue& value : program.values) hash.add(fmt::format("{} {} {} {}", value.name, value.type.to_string(), value.weight, value.alias_of));
    for (const Step& step : program.steps) hash.add(fmt::format("{} {} {} {}", step.kernel, step.op, step.operands, step.results));
  }
  for (const PlanWeight& weight : plan.weights) hash.add(weight.recipe ? weight.recipe->to_string() : weight.name);
  add_collectives(hash, plan);
  return hash.value();
}

}  // namespace tandem
