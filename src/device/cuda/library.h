// Libraries of NVIDIA that are opened when the program runs, so that one program serves machines that have them and machines that do not.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::cuda {

class Library;

struct LibrarySpec {
  std::string_view name, purpose;
  std::vector<std::string> sonames;  // the first that is found in a place is taken
  std::string_view how_to_get;
  std::string (*version)(const Library& library) = nullptr;
  std::string_view companion = {};                          // files of the same folder that start so are loaded first, by full path
  std::string (*extras)(const Library& library) = nullptr;  // what this one can do beyond the oldest that serves, in words for reports
};

// An open library. It stays open until the process ends. Thread-safe.
class Library {
 public:
  // Looks in this order: the folders of the environment's TANDEM_CUDA_LIBRARIES (separated by ':'), what the process has loaded already,
  // the loader's own path, the CUDA toolkit, the nvidia-* packages of Python. Throws Error(unsupported) saying where it looked, what
  // could not be used and how to get one; a file in a folder of TANDEM_CUDA_LIBRARIES that cannot be used ends the search.
  // Of NCCL the one that the process has loaded goes before all others.
  explicit Library(const LibrarySpec& spec);

  // F is a function type. Throws Error(unsupported) if the library lacks it.
  template <typename F>
  F* function(const char* name) const {
    return reinterpret_cast<F*>(symbol(name));
  }
  void* handle() const { return handle_; }  // of dlopen
  const std::string& path() const { return path_; }
  const std::string& version() const { return version_; }

 private:
  void* symbol(const char* name) const;

  const LibrarySpec& spec_;
  void* handle_ = nullptr;
  std::string path_, version_;
};

// The libraries that our code calls: opened on first use, once; a search that failed is not repeated.
enum class Which { cublaslt, nvrtc, cudnn, nccl };
inline constexpr Which kAllLibraries[] = {Which::cublaslt, Which::nvrtc, Which::cudnn, Which::nccl};
const LibrarySpec& spec_of(Which which);
// Throws what Library's constructor threw.
const Library& library(Which which);
// Null if it cannot be used; `why`, where given, is then set to the reason.
const Library* find_library(Which which, std::string* why = nullptr);

// Where a library is looked for here, as a list in words.
std::string places();
// Folders where libraries may lie, in the order of the search: of the toolkit, of Python's packages.
std::vector<std::string> toolkit_library_folders();
std::vector<std::string> package_library_folders();

}  // namespace tandem::cuda
