// Whether this program's GPUs are played by threads of the CPU (tests/emulator), which takes about a thousand times as long: then tests
// take fewer and smaller sizes.
#pragma once

namespace tandem::test {

#ifdef TANDEM_EMULATED_GPUS
inline constexpr bool kEmulated = true;
#else
inline constexpr bool kEmulated = false;
#endif

}  // namespace tandem::test
