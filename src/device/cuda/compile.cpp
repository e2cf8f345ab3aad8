#include "device/cuda/compile.h"

#include <nvrtc.h>

#include <map>
#include <mutex>

#include "core/check.h"
#include "device/cuda/library.h"
#include "device/cuda/runtime.h"

namespace tandem::cuda {
namespace {

struct Nvrtc {
  decltype(nvrtcCreateProgram)* create;
  decltype(nvrtcDestroyProgram)* destroy;
  decltype(nvrtcCompileProgram)* compile;
  decltype(nvrtcGetProgramLogSize)* log_size;
  decltype(nvrtcGetProgramLog)* log;
  decltype(nvrtcGetCUBINSize)* cubin_size;
  decltype(nvrtcGetCUBIN)* cubin;
  decltype(nvrtcGetErrorString)* error_string;
};

const Nvrtc& nvrtc() {
  static const Nvrtc functions = [] {
    const Library& l = library(Which::nvrtc);
    return Nvrtc{
        .create = l.function<decltype(nvrtcCreateProgram)>("nvrtcCreateProgram"),
        .destroy = l.function<decltype(nvrtcDestroyProgram)>("nvrtcDestroyProgram"),
        .compile = l.function<decltype(nvrtcCompileProgram)>("nvrtcCompileProgram"),
        .log_size = l.function<decltype(nvrtcGetProgramLogSize)>("nvrtcGetProgramLogSize"),
        .log = l.function<decltype(nvrtcGetProgramLog)>("nvrtcGetProgramLog"),
        .cubin_size = l.function<decltype(nvrtcGetCUBINSize)>("nvrtcGetCUBINSize"),
        .cubin = l.function<decltype(nvrtcGetCUBIN)>("nvrtcGetCUBIN"),
        .error_string = l.function<decltype(nvrtcGetErrorString)>("nvrtcGetErrorString"),
    };
  }();
  return functions;
}

std::string log_of(nvrtcProgram program) {
  std::size_t size = 0;
  if (nvrtc().log_size(program, &size) != NVRTC_SUCCESS || size <= 1) return "it gave no messages";
  std::string log(size, '\0');
  nvrtc().log(program, log.data());
  log.resize(size - 1);
  return log;
}

struct Program {
  nvrtcProgram handle = nullptr;
  ~Program() { nvrtc().destroy(&handle); }
};

}  // namespace

std::vector<char> compile(const std::string& source, int sm) {
  const auto check_nvrtc = [](nvrtcResult status, const std::string& why) {
    if (status != NVRTC_SUCCESS)
      fail(ErrorCode::internal, "NVRTC {} ({}): {}: {}", library(Which::nvrtc).version(), library(Which::nvrtc).path(), nvrtc().error_string(status), why);
  };
  Program program;
  check_nvrtc(nvrtc().create(&program.handle, source.c_str(), "tandem.cu", 0, nullptr, nullptr), "making a program");
  const std::string architecture = fmt::format("--gpu-architecture=sm_{}", sm);
  const char* options[] = {architecture.c_str(), "--std=c++17", "--fmad=false"};
  const nvrtcResult status = nvrtc().compile(program.handle, static_cast<int>(std::size(options)), options);
  check_nvrtc(status, status == NVRTC_SUCCESS ? "" : log_of(program.handle));
  std::size_t size = 0;
  check_nvrtc(nvrtc().cubin_size(program.handle, &size), "asking for the code");
  std::vector<char> code(size);
  check_nvrtc(nvrtc().cubin(program.handle, code.data()), "asking for the code");
  return code;
}

cudaKernel_t compiled_kernel(const std::string& source, const char* name, int sm) {
  static std::mutex mutex;
  static std::map<std::pair<std::string, int>, cudaLibrary_t> libraries;
  const std::lock_guard lock(mutex);
  cudaLibrary_t& loaded = libraries[{source, sm}];
  if (!loaded) {
    const std::vector<char> code = compile(source, sm);
    check(cudaLibraryLoadData(&loaded, code.data(), nullptr, nullptr, 0, nullptr, nullptr, 0), "loading a compiled kernel");
  }
  cudaKernel_t kernel = nullptr;
  check(cudaLibraryGetKernel(&kernel, loaded, name), "finding a compiled kernel");
  return kernel;
}

}  // namespace tandem::cuda
