// How long the work of a stream takes, by the GPU's clock.
#pragma once

#include <memory>

#include "device/device.h"

namespace tandem::cuda {

std::unique_ptr<Stopwatch> make_stopwatch();

}  // namespace tandem::cuda
