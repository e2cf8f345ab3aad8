// Long work in C++ that tells Python how far it is, and ends when Python wants it to.
#pragma once

#include "bind.h"
#include "tandem/engine.h"

namespace tandem::python {

// Checks for signals at each report, then calls `told(what, done)` unless it is None. What either raises ends the work. To be made with
// the GIL, called without it, dropped either way.
ProgressCallback progress_callback(nb::object told);

}  // namespace tandem::python
