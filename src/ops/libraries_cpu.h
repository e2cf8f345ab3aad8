// What the kernels of this program stand on, for plans to record.
#pragma once

#include <map>
#include <string>

namespace tandem {

// Libraries that compute for kernels (KernelDef::library) and are found when the program starts: name → version. Lacks those that the
// program was built without.
const std::map<std::string, std::string>& library_versions();

// The vector code that was compiled in: "Highway 1.0.3 for AVX3, AVX2, SCALAR".
std::string vector_code();

}  // namespace tandem
