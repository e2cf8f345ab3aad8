#include "device/cuda/library.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <sstream>

#include "core/check.h"

namespace tandem::cuda {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSetting = "TANDEM_CUDA_LIBRARIES";

std::vector<std::string> set_folders() {
  const char* value = std::getenv(kSetting);
  std::istringstream parts(value ? value : "");
  std::vector<std::string> folders;
  for (std::string part; std::getline(parts, part, ':');)
    if (!part.empty()) folders.push_back(part);
  return folders;
}

std::string path_of(void* handle) {
  link_map* map = nullptr;
  return dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name ? map->l_name : "";
}

// Communicators of NCCL pass between those who use it in a process, as PyTorch does, so there is one: whichever is loaded already, else
// that of Python's packages, which PyTorch opens by its path whatever else is loaded.
bool is_one_in_process(const LibrarySpec& spec) { return spec.sonames.front() == "libnccl.so.2"; }

// One search for one library, with what it met on the way.
class Search {
 public:
  explicit Search(const LibrarySpec& spec) : spec_(spec) {}

  void* run() {
    if (is_one_in_process(spec_))
      for (const std::string& soname : spec_.sonames)
        if (void* handle = by_name(soname, RTLD_NOLOAD)) return handle;
    for (const std::string& folder : set_folders()) {
      if (void* handle = in_folder(folder)) return handle;
      if (!trouble_.empty())
        fail(ErrorCode::unsupported, "{} cannot be used: {}, a folder of {}", spec_.name, fmt::join(trouble_, "; "), kSetting);
    }
    if (is_one_in_process(spec_))
      for (const std::string& folder : package_library_folders())
        if (void* handle = in_folder(folder)) return handle;
    for (const int flags : {RTLD_NOLOAD, 0})
      for (const std::string& soname : spec_.sonames)
        if (void* handle = by_name(soname, flags)) return handle;
    for (const auto& folders : {toolkit_library_folders(), package_library_folders()})
      for (const std::string& folder : folders)
        if (void* handle = in_folder(folder)) return handle;
    give_up();
  }

 private:
  void* by_name(const std::string& soname, int flags) {
    if (void* handle = dlopen(soname.c_str(), RTLD_NOW | RTLD_LOCAL | flags)) {
      load_companions(fs::path(path_of(handle)).parent_path());
      return handle;
    }
    const char* why = dlerror();  // null where RTLD_NOLOAD finds nothing
    if (why && !std::string_view(why).ends_with("No such file or directory")) trouble_.emplace_back(why);
    return nullptr;
  }

  void* in_folder(const std::string& folder) {
    std::error_code none;
    for (const std::string& soname : spec_.sonames) {
      const fs::path file = fs::path(folder) / soname;
      if (!fs::exists(file, none)) continue;
      load_companions(folder);
      if (void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
      trouble_.emplace_back(dlerror());
    }
    return nullptr;
  }

  // Libraries that the library opens by name, from where the loader does not look. Loaded ones are found by their names.
  void load_companions(const fs::path& folder) {
    if (spec_.companion.empty()) return;
    std::error_code none;
    for (fs::directory_iterator it(folder, none), end; !none && it != end; it.increment(none))
      if (it->path().filename().string().starts_with(spec_.companion)) dlopen(it->path().c_str(), RTLD_NOW | RTLD_GLOBAL);
  }

  [[noreturn]] void give_up() {
    const std::string unusable = trouble_.empty() ? "" : fmt::format("; could not be used: {}", fmt::join(trouble_, "; "));
    fail(ErrorCode::unsupported, "{} ({}) was not found in {}{}. To get it: {}; or name its folder in {}", spec_.name,
         fmt::join(spec_.sonames, " or "), places(), unusable, spec_.how_to_get, kSetting);
  }

  const LibrarySpec& spec_;
  std::vector<std::string> trouble_;
};

// 13 01 00: how the libraries write versions as one number.
std::string three_parts(std::size_t number, std::size_t major, std::size_t minor) {
  return fmt::format("{}.{}.{}", number / major, number % major / minor, number % minor);
}

const std::array<LibrarySpec, 4>& specs() {
  static const std::array<LibrarySpec, 4> list = {{
      {"cuBLASLt",
       "matrix products",
       {"libcublasLt.so.13", "libcublasLt.so.12"},
       "pip install nvidia-cublas",
       [](const Library& l) { return three_parts(l.function<std::size_t()>("cublasLtGetVersion")(), 10000, 100); }},
      {"NVRTC",
       "element-wise kernels, compiled when they are needed",
       {"libnvrtc.so.13", "libnvrtc.so.12"},
       "pip install nvidia-cuda-nvrtc",
       [](const Library& l) {
         int major = 0, minor = 0;
         l.function<int(int*, int*)>("nvrtcVersion")(&major, &minor);
         return fmt::format("{}.{}", major, minor);
       },
       "libnvrtc-builtins.so"},
      {"cuDNN",
       "attention and convolution",
       {"libcudnn.so.9"},
       "pip install nvidia-cudnn-cu13",
       [](const Library& l) { return three_parts(l.function<std::size_t()>("cudnnGetVersion")(), 10000, 100); }},
      {"NCCL",
       "collectives between GPUs",
       {"libnccl.so.2", "libnccl.so"},
       "pip install nvidia-nccl-cu13",
       [](const Library& l) {
         int version = 0;
         l.function<int(int*)>("ncclGetVersion")(&version);
         return three_parts(static_cast<std::size_t>(version), 10000, 100);
       },
       {},
       [](const Library& l) -> std::string {
         return dlsym(l.handle(), "ncclCommRegister") ? "it can register memory" : "it cannot register memory";
       }},
  }};
  return list;
}

struct Entry {
  std::once_flag once;
  std::unique_ptr<Library> library;
  std::string why;
};

const Entry& entry_of(Which which) {
  static std::array<Entry, 4> entries;
  Entry& entry = entries.at(static_cast<std::size_t>(which));
  std::call_once(entry.once, [&] {
    try {
      entry.library = std::make_unique<Library>(spec_of(which));
    } catch (const Error& error) {
      entry.why = error.message();
    }
  });
  return entry;
}

}  // namespace

Library::Library(const LibrarySpec& spec) : spec_(spec), handle_(Search(spec).run()), path_(path_of(handle_)) {
  if (spec.version) version_ = spec.version(*this);
}

void* Library::symbol(const char* name) const {
  void* found = dlsym(handle_, name);
  if (!found)
    fail(ErrorCode::unsupported, "{} at {}{}{} has no function {}: it is another version or another library. To get it: {}", spec_.name,
         path_, version_.empty() ? "" : ", version ", version_, name, spec_.how_to_get);
  return found;
}

std::string places() {
  std::vector<std::string> looked;
  for (const std::string& folder : set_folders()) looked.push_back(fmt::format("{} ({})", folder, kSetting));
  looked.emplace_back("the loader's path");
  for (const auto& folders : {toolkit_library_folders(), package_library_folders()})
    looked.insert(looked.end(), folders.begin(), folders.end());
  return fmt::format("{}", fmt::join(looked, ", "));
}

const LibrarySpec& spec_of(Which which) { return specs().at(static_cast<std::size_t>(which)); }

const Library& library(Which which) {
  const Entry& entry = entry_of(which);
  if (!entry.library) fail(ErrorCode::unsupported, "{}", entry.why);
  return *entry.library;
}

const Library* find_library(Which which, std::string* why) {
  const Entry& entry = entry_of(which);
  if (why) *why = entry.why;
  return entry.library.get();
}

}  // namespace tandem::cuda
