#include "ops/ops.h"

namespace tandem {

const OpSet& all_ops() {
  static const OpSet set({
#define TANDEM_OP(name) &ops::name,
#include "ops/ops.def"
  });
  return set;
}

}  // namespace tandem
