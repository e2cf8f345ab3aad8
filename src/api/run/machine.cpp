#include "tandem/machine.h"

#include <link.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "core/check.h"
#include "device/device.h"
#include "device/links.h"

namespace tandem {
namespace {

struct Wanted {
  const char *part, *name, *purpose, *how_to_get;
};

// `part`: how the file's name starts.
constexpr Wanted kWanted[] = {
    {"libdnnl", "oneDNN", "matrix products on CPUs",
     "apt install libdnnl-dev, then build with TANDEM_ONEDNN=ON; without it the plain kernels serve, slowly"},
    {"libprotobuf", "protobuf", "reading ONNX files", "apt install libprotobuf-dev"},
    {"libhwy", "Highway", "vector kernels", "apt install libhwy-dev"},
    {"libfmt", "fmt", "text", "apt install libfmt-dev"},
};

std::vector<std::string> loaded_files() {
  std::vector<std::string> files;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* into) {
        static_cast<std::vector<std::string>*>(into)->emplace_back(info->dlpi_name ? info->dlpi_name : "");
        return 0;
      },
      &files);
  return files;
}

std::vector<LibraryReport> find_libraries(const CudaReport& cuda) {
  std::vector<LibraryReport> reports;
  const auto files = loaded_files();
  for (const Wanted& wanted : kWanted) {
    LibraryReport report{wanted.name, "", wanted.purpose, "", ""};
    std::error_code none;
    for (const std::string& file : files)
      if (std::filesystem::path(file).filename().string().starts_with(wanted.part))
        report.path = std::filesystem::canonical(file, none).string();
    if (report.path.empty()) report.how_to_get = wanted.how_to_get;
    reports.push_back(std::move(report));
  }
  for (const CudaReport::Library& library : cuda.libraries)
    reports.push_back({library.name, library.path, library.purpose, library.how_to_get, library.version});
  return reports;
}

// The value behind "key :" in a file of such lines; empty if there is none.
std::string value_in(const char* path, const std::string& key) {
  std::string line;
  for (std::ifstream file(path); std::getline(file, line);)
    if (line.starts_with(key)) {
      const std::size_t at = line.find_first_not_of(" \t", line.find(':') + 1);
      return at == std::string::npos ? "" : line.substr(at);
    }
  return "";
}

std::vector<std::string> find_features() {
  constexpr std::array kKnown = {"sse4_2",      "avx2",        "fma",         "f16c",     "avx512f", "avx512bw",
                                 "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"};
  std::istringstream words(value_in("/proc/cpuinfo", "flags"));
  std::set<std::string> flags;
  for (std::string word; words >> word;) flags.insert(word);
  std::vector<std::string> features;
  for (const char* known : kKnown)
    if (flags.contains(known)) features.emplace_back(known);
  return features;
}

double find_cpu_limit() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::atof(quota.c_str()) / period;
}

// "cpu", and the GPUs.
std::vector<std::string> find_devices() {
  std::vector<std::string> devices = {"cpu"};
  for (int i = 0; i < cuda_device_count(); ++i) {
    const std::vector<int> reached = gpus_reached_by(i);
    const std::string links = reached.empty() ? "" : fmt::format(", reaches the memory of cuda:{}", fmt::join(reached, ", cuda:"));
    devices.push_back(fmt::format("cuda:{} {}{}", i, open_device("cuda", i)->name(), links));
  }
  return devices;
}

std::vector<std::string> find_hints(const MachineReport& report, const CudaReport& cuda) {
  std::vector<std::string> hints;
  if (report.cpu_limit > 0 && report.cpu_limit < report.cores)
    hints.push_back("the container allows less CPU time than it shows cores: give --threads so that ranks × threads fits");
  for (const char* name : {"OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA"})
    if (const char* value = std::getenv(name))
      hints.push_back(std::string(name) + "=" + value + " is set in the environment and may change how fast kernels are");
  if (!cuda.problem.empty()) hints.push_back(cuda.problem);
  if (std::ranges::any_of(cuda.libraries, [](const auto& library) { return library.path.empty(); }))
    hints.push_back("the missing libraries of CUDA were looked for in " + cuda.looked_in);
  if (!built_with_cuda() && std::filesystem::exists("/dev/nvidia0"))
    hints.push_back("there is an NVIDIA GPU, which this program was built without: `make cuda` builds one that uses it");
  return hints;
}

}  // namespace

MachineReport inspect_machine(bool with_gpus) {
  MachineReport report;
  report.cpu = value_in("/proc/cpuinfo", "model name");
  report.features = find_features();
  cpu_set_t cores;
  report.cores = ::sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
  report.cpu_limit = find_cpu_limit();
  report.memory_bytes = std::atoll(value_in("/proc/meminfo", "MemTotal").c_str()) * 1024;
  report.available_bytes = std::atoll(value_in("/proc/meminfo", "MemAvailable").c_str()) * 1024;
  const CudaReport cuda = with_gpus ? report_cuda() : CudaReport{};
  report.devices = with_gpus ? find_devices() : std::vector<std::string>{"cpu"};
  report.libraries = find_libraries(cuda);
  report.hints = find_hints(report, cuda);
  return report;
}

std::vector<std::string> device_kinds() {
  std::vector<std::string> kinds;
  for (const char* kind : {"cpu", "cuda"})
    if (has_device_kind(kind)) kinds.emplace_back(kind);
  return kinds;
}

}  // namespace tandem
