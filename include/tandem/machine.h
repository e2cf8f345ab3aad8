// What this machine offers. Public.
#pragma once

#include <string>
#include <vector>

namespace tandem {

struct LibraryReport {
  std::string name, path;  // the file that is loaded; empty if there is none
  std::string purpose;
  std::string how_to_get;  // if it is missing
  std::string version;     // where it is known
};

struct MachineReport {
  std::string cpu;
  std::vector<std::string> features;  // of the CPU, as far as kernels care: avx2, avx512f, …
  int cores = 0;                      // that this process may run on
  double cpu_limit = 0;               // cores' worth of time that the container allows; 0: no limit
  long long memory_bytes = 0, available_bytes = 0;
  std::vector<std::string> devices;  // "cpu", "cuda:0 NVIDIA H200 (sm_90)", …
  std::vector<LibraryReport> libraries;
  std::vector<std::string> hints;  // what would hold work up here
};

// Without GPUs: nothing of CUDA is started, and GPUs and their libraries are left out.
MachineReport inspect_machine(bool with_gpus = true);

// The kinds of device that this program was built for, whether the machine has them or not: "cpu", "cuda".
std::vector<std::string> device_kinds();

}  // namespace tandem
