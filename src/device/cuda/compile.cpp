#include "device/cuda/compile.h"

#include <fmt/ranges.h>
#include <nvrtc.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "core/check.h"
#include "core/digest.h"
#include "device/code.h"
#include "device/cuda/architectures.h"
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
  decltype(nvrtcGetPTXSize)* text_size;
  decltype(nvrtcGetPTX)* text;
  decltype(nvrtcGetNumSupportedArchs)* count_known;
  decltype(nvrtcGetSupportedArchs)* known;
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
        .text_size = l.function<decltype(nvrtcGetPTXSize)>("nvrtcGetPTXSize"),
        .text = l.function<decltype(nvrtcGetPTX)>("nvrtcGetPTX"),
        .count_known = l.function<decltype(nvrtcGetNumSupportedArchs)>("nvrtcGetNumSupportedArchs"),
        .known = l.function<decltype(nvrtcGetSupportedArchs)>("nvrtcGetSupportedArchs"),
        .error_string = l.function<decltype(nvrtcGetErrorString)>("nvrtcGetErrorString"),
    };
  }();
  return functions;
}

void check_nvrtc(nvrtcResult status, const std::string& why) {
  if (status != NVRTC_SUCCESS)
    fail(ErrorCode::internal, "NVRTC {} ({}): {}: {}", library(Which::nvrtc).version(), library(Which::nvrtc).path(),
         nvrtc().error_string(status), why);
}

// The one that NVRTC is to compile for.
std::string architecture_of(int sm) {
  int count = 0;
  check_nvrtc(nvrtc().count_known(&count), "asking what it compiles for");
  std::vector<int> known(static_cast<std::size_t>(count));
  check_nvrtc(nvrtc().known(known.data()), "asking what it compiles for");
  std::ranges::sort(known);
  const std::string found = architecture_for(known, sm);
  if (found.empty())
    fail(ErrorCode::unsupported, "NVRTC {} ({}) compiles for no GPU as old as sm_{}: for sm_{}", library(Which::nvrtc).version(),
         library(Which::nvrtc).path(), sm, fmt::join(known, ", sm_"));
  return found;
}

std::string log_of(nvrtcProgram program) {
  std::size_t size = 0;
  if (nvrtc().log_size(program, &size) != NVRTC_SUCCESS || size <= 1) return "it gave no messages";
  std::string log(size, '\0');
  nvrtc().log(program, log.data());
  log.resize(size - 1);
  return log;
}

struct NvrtcProgram {
  nvrtcProgram handle = nullptr;
  ~NvrtcProgram() { nvrtc().destroy(&handle); }
};

// What engines brought, by text and kind of GPU.
struct Offers {
  std::mutex mutex;
  std::map<std::pair<std::string, int>, CodeBytes> code;
};

Offers& offers() {
  static Offers* all = new Offers;  // kernels may be made until the process ends
  return *all;
}

CodeBytes offered(const std::string& source, int sm) {
  const std::lock_guard lock(offers().mutex);
  const std::string key = text_key(source);
  CodeBytes best;  // the last that runs here is for the nearest GPU
  for (auto at = offers().code.lower_bound({key, 0}); at != offers().code.end() && at->first.first == key; ++at)
    if (runs_on(at->first.second, sm)) best = at->second;
  return best;
}

CodeBytes offered_or_compiled(const std::string& source, int sm) {
  if (CodeBytes code = offered(source, sm)) return code;
  std::string why;
  if (!can_compile_cuda(&why))
    fail(ErrorCode::unsupported, "the engine holds no code of this kernel for sm_{}, and it cannot be compiled here: {}", sm, why);
  return compile_cuda(source, sm);
}

}  // namespace

cudaKernel_t compiled_kernel(const std::string& source, const char* name, int sm) {
  static std::mutex mutex;
  static std::map<std::pair<std::string, int>, cudaLibrary_t> libraries;
  const std::lock_guard lock(mutex);
  cudaLibrary_t& loaded = libraries[{source, sm}];
  if (!loaded) {
    const CodeBytes code = offered_or_compiled(source, sm);
    check(cudaLibraryLoadData(&loaded, code->data(), nullptr, nullptr, 0, nullptr, nullptr, 0), "loading a compiled kernel");
  }
  cudaKernel_t kernel = nullptr;
  check(cudaLibraryGetKernel(&kernel, loaded, name), "finding a compiled kernel");
  return kernel;
}

}  // namespace tandem::cuda

namespace tandem {

bool can_compile_cuda(std::string* why) { return cuda::find_library(cuda::Which::nvrtc, why) != nullptr; }

void offer_cuda_code(const std::string& key, int sm, CodeBytes code) {
  cuda::Offers& offers = cuda::offers();
  const std::lock_guard lock(offers.mutex);
  offers.code.try_emplace({key, sm}, std::move(code));
}

CodeBytes compile_cuda(const std::string& text, int sm) {
  using namespace cuda;
  const std::string target = architecture_of(sm);
  NvrtcProgram program;
  check_nvrtc(nvrtc().create(&program.handle, text.c_str(), "tandem.cu", 0, nullptr, nullptr), "making a program");
  const std::string architecture = "--gpu-architecture=" + target;
  const char* options[] = {architecture.c_str(), "--std=c++17", "--fmad=false"};
  const nvrtcResult status = nvrtc().compile(program.handle, static_cast<int>(std::size(options)), options);
  check_nvrtc(status, status == NVRTC_SUCCESS ? "" : log_of(program.handle));
  const bool machine_code = target.starts_with("sm_");
  std::size_t size = 0;
  check_nvrtc((machine_code ? nvrtc().cubin_size : nvrtc().text_size)(program.handle, &size), "asking for the code");
  auto code = std::make_shared<std::vector<std::byte>>(size);
  check_nvrtc((machine_code ? nvrtc().cubin : nvrtc().text)(program.handle, reinterpret_cast<char*>(code->data())), "asking for the code");
  return code;
}

}  // namespace tandem
