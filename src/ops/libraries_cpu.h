// What the kernels of this program stand on, for plans to record.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace tandem {

// Libraries that compute for the kernels of a device (KernelDef::library): name → version. Lacks those that the program was built without,
// and of GPUs those that cannot be opened here.
const std::map<std::string, std::string>& library_versions(std::string_view device = "cpu");

// The vector code that was compiled in: "Highway 1.0.3 for AVX3, AVX2, SCALAR".
std::string vector_code();

}  // namespace tandem
