// Progress of long work on stderr.
#pragma once

#include "cli/verbs.h"

namespace tandem::cli {

// One line that is rewritten on a terminal, a line a second elsewhere; nothing for work of less than a second, or when told to be quiet.
// Throws Error(interrupted) once a signal has asked to stop, so that the work leaves nothing behind.
ProgressCallback show_progress(const Common& common);

}  // namespace tandem::cli
