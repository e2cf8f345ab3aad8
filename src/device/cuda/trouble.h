// GPUs that this process has lost: a kernel broke the GPU's context, or does not end. Nothing then waits for them, frees their memory or
// gives them work.
#pragma once

#include <cuda_runtime.h>

#include "tandem/error.h"

namespace tandem::cuda {

// For good. Later calls repeat the error; the first one counts.
void lose(int ordinal, const Error& error);
// Until what `stream` was given so far is done, if ever, and what else such calls named. Waits for nothing.
void lose_until_done(int ordinal, cudaStream_t stream, const Error& error);
// Throws the error by which it was lost. Never waits.
void throw_if_lost(int ordinal);
bool is_lost(int ordinal) noexcept;
// Whether any GPU is: then memory of the host that GPUs read is kept as well.
bool any_lost() noexcept;

// Whether after this error a context can do nothing more.
bool breaks_context(cudaError_t status);

}  // namespace tandem::cuda
