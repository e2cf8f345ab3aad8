// HostMemory: the bytes of an engine file in memory, for whoever reads buffers.
#pragma once

#include "bind.h"
#include "tandem/engine.h"

namespace tandem::python {

struct HostMemory {
  Array bytes;
};

}  // namespace tandem::python
