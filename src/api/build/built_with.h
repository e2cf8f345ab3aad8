// What a build hangs on besides the model and the mesh, for the plan to record and `inspect` to print.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tandem/build.h"

namespace tandem {

// compiler, commit (if known), onednn, vectors, target, options (all that differ from the defaults), and, where kernels are timed, the
// cpu. Without timing it is the same on every machine.
std::map<std::string, std::string> built_with(const BuildOptions& options, int threads);

// What a plan's record of itself says of its build.
struct RecordedBuild {
  std::vector<std::string> kernels;  // asked for by name
  bool dependent_launch = true;      // steps may start early
};
RecordedBuild recorded_build(const std::map<std::string, std::string>& built_with);

// Adds to the record that kernels were timed here, on ranks with so many threads, among the libraries that `device` has here.
void record_timing(std::map<std::string, std::string>& built_with, const std::string& device, int threads);

// Of the sources of this program, "+" behind it if they had changes; empty where it was not built from a repository.
std::string source_commit();

}  // namespace tandem
