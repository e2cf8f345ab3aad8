#include "device/cuda/compile.h"

#include <nvrtc.h>

#include <map>
#include <mutex>

#include "core/check.h"
#include "core/digest.h"
#include "device/code.h"
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
  const auto found = offers().code.find({text_key(source), sm});
  return found == offers().code.end() ? nullptr : found->second;
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
  const auto check_nvrtc = [](nvrtcResult status, const std::string& why) {
    if (status != NVRTC_SUCCESS)
      fail(ErrorCode::internal, "NVRTC {} ({}): {}: {}", library(Which::nvrtc).version(), library(Which::nvrtc).path(),
           nvrtc().error_string(status), why);
  };
  NvrtcProgram program;
  check_nvrtc(nvrtc().create(&program.handle, text.c_str(), "tandem.cu", 0, nullptr, nullptr), "making a program");
  const std::string architecture = fmt::format("--gpu-architecture=sm_{}", sm);
  const char* options[] = {architecture.c_str(), "--std=c++17", "--fmad=false"};
  const nvrtcResult status = nvrtc().compile(program.handle, static_cast<int>(std::size(options)), options);
  check_nvrtc(status, status == NVRTC_SUCCESS ? "" : log_of(program.handle));
  std::size_t size = 0;
  check_nvrtc(nvrtc().cubin_size(program.handle, &size), "asking for the code");
  auto code = std::make_shared<std::vector<std::byte>>(size);
  check_nvrtc(nvrtc().cubin(program.handle, reinterpret_cast<char*>(code->data())), "asking for the code");
  return code;
}

}  // namespace tandem
