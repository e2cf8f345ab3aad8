#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "device/cuda/library.h"
#include "tandem/error.h"

namespace tandem::cuda {
namespace {

namespace fs = std::filesystem;

const fs::path kSmall = TANDEM_SMALL_LIBRARY;  // libtandem_small.so, in a folder of its own

LibrarySpec spec(std::string soname) {
  return {"Small", "tests", {std::move(soname)}, "pip install small", [](const Library& l) {
            return std::to_string(l.function<int()>("tandem_small_answer")());
          }};
}

// The setting for a scope.
class Setting {
 public:
  Setting(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before, was_set_ = true;
    setenv(name, value.c_str(), 1);
  }
  ~Setting() {
    if (was_set_) setenv(name_, before_.c_str(), 1);
    else unsetenv(name_);
  }

 private:
  const char* name_;
  std::string before_;
  bool was_set_ = false;
};

std::string message_of(const LibrarySpec& spec) {
  try {
    Library library(spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    return error.message();
  }
  ADD_FAILURE() << "it was found";
  return "";
}

void expect_parts(const std::string& message, std::initializer_list<const char*> parts) {
  for (const char* part : parts) EXPECT_NE(message.find(part), std::string::npos) << part << " is not in: " << message;
}

fs::path fresh_folder(const char* name) {
  const fs::path folder = fs::path(testing::TempDir()) / name;
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder;
}

TEST(CudaLibrary, MissingSaysWhereItLookedAndHowToGetIt) {
  const Setting setting("TANDEM_CUDA_LIBRARIES", "/nowhere/a:/nowhere/b");
  const fs::path environment = fresh_folder("tandem_environment");
  fs::create_directories(environment / "lib/python3.9/site-packages/nvidia/small/lib");
  const Setting python("VIRTUAL_ENV", environment);
  expect_parts(message_of(spec("libtandem_none.so.7")), {"Small (libtandem_none.so.7)", "/nowhere/a (TANDEM_CUDA_LIBRARIES), /nowhere/b",
                                                         "the loader's path", "site-packages/nvidia/small/lib", "pip install small"});
}

TEST(CudaLibrary, WrongFilesAreNamed) {
  const fs::path folder = fresh_folder("tandem_wrong");
  std::ofstream(folder / "libtandem_wrong.so") << "this is no library";
  {
    const Setting setting("TANDEM_CUDA_LIBRARIES", folder);
    expect_parts(message_of(spec("libtandem_wrong.so")), {"Small cannot be used", "tandem_wrong/libtandem_wrong.so"});
  }
  const fs::path packages = folder / "lib/python3.11/site-packages/nvidia/wrong/lib";
  fs::create_directories(packages);
  fs::rename(folder / "libtandem_wrong.so", packages / "libtandem_wrong.so");
  const Setting python("VIRTUAL_ENV", folder);
  expect_parts(message_of(spec("libtandem_wrong.so")), {"could not be used", "nvidia/wrong/lib/libtandem_wrong.so", "pip install small"});
}

TEST(CudaLibrary, FoundInTheEnvironmentOfPython) {
  const fs::path folder = fresh_folder("tandem_packages"), packages = folder / "lib/python3.11/site-packages/nvidia/cu13/lib";
  fs::create_directories(packages);
  fs::copy_file(kSmall, packages / "libtandem_copy.so.1");
  const Setting python("VIRTUAL_ENV", folder);
  const LibrarySpec copy = spec("libtandem_copy.so.1");
  const Library library(copy);
  EXPECT_EQ(library.path(), packages / "libtandem_copy.so.1");
  EXPECT_EQ(library.version(), "42");
}

TEST(CudaLibrary, FoundBesideThePythonOnThePath) {
  const fs::path folder = fresh_folder("tandem_path"), packages = folder / "lib/python3.12/site-packages/nvidia/cu13/lib";
  fs::create_directories(packages);
  fs::create_directories(folder / "bin");
  fs::create_symlink("/bin/true", folder / "bin/python3");
  std::ofstream(folder / "pyvenv.cfg") << "home = /usr/bin\ninclude-system-site-packages = false\n";
  fs::copy_file(kSmall, packages / "libtandem_path.so.1");
  const Setting python("VIRTUAL_ENV", ""), path("PATH", (folder / "bin").string());
  const LibrarySpec on_path = spec("libtandem_path.so.1");
  EXPECT_EQ(Library(on_path).path(), packages / "libtandem_path.so.1");
}

TEST(CudaLibrary, FirstSonameAndExplicitFolderGoFirst) {
  const fs::path one = fresh_folder("tandem_one"), two = fresh_folder("tandem_two");
  for (const fs::path& file : {one / "libtandem_old.so.1", two / "libtandem_new.so.2", two / "libtandem_old.so.1"})
    fs::copy_file(kSmall, file);
  const Setting setting("TANDEM_CUDA_LIBRARIES", two.string() + ":" + one.string());
  LibrarySpec both = spec("libtandem_new.so.2");
  both.sonames.emplace_back("libtandem_old.so.1");
  EXPECT_EQ(Library(both).path(), two / "libtandem_new.so.2");
}

// As NVRTC opens its builtins: by a name that the loader finds only where a library of that name is loaded already.
TEST(CudaLibrary, CompanionsAreLoadedFromTheSameFolder) {
  const fs::path folder = fresh_folder("tandem_companion");
  fs::copy_file(kSmall, folder / "libtandem_main.so.1");
  fs::copy_file(kSmall, folder / "libtandem_main-builtins.so.1.2");
  const Setting setting("TANDEM_CUDA_LIBRARIES", folder);
  const auto is_loaded = [&](const char* name) {
    void* found = dlopen((folder / name).c_str(), RTLD_NOW | RTLD_NOLOAD);
    return found && dlclose(found) == 0;
  };
  EXPECT_FALSE(is_loaded("libtandem_main-builtins.so.1.2"));
  LibrarySpec main = spec("libtandem_main.so.1");
  main.companion = "libtandem_main-builtins.so";
  EXPECT_EQ(Library(main).path(), folder / "libtandem_main.so.1");
  EXPECT_TRUE(is_loaded("libtandem_main-builtins.so.1.2"));
}

TEST(CudaLibrary, NamesThatAreLookedFor) {
  EXPECT_EQ(spec_of(Which::nccl).sonames, (std::vector<std::string>{"libnccl.so.2", "libnccl.so"}));
  EXPECT_EQ(spec_of(Which::cudnn).sonames, std::vector<std::string>{"libcudnn.so.9"});
  EXPECT_EQ(spec_of(Which::nvrtc).companion, "libnvrtc-builtins.so");
}

// Whatever the setting says: a communicator of one NCCL is nothing to another.
TEST(CudaLibrary, ThereIsOneNcclInAProcess) {
  const fs::path loaded = fs::path(TANDEM_NCCL_STUB_FOLDER) / "libnccl.so.2", other = fresh_folder("tandem_other_nccl");
  fs::copy_file(loaded, other / "libnccl.so.2");
  const Setting setting("TANDEM_CUDA_LIBRARIES", other);
  void* handle = dlopen(loaded.c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(handle, nullptr) << dlerror();
  EXPECT_EQ(Library(spec_of(Which::nccl)).path(), loaded);
}

// PyTorch opens that of Python's packages by its path, also where another is loaded: so ours is the same.
TEST(CudaLibrary, NcclOfPythonsPackagesGoesBeforeTheToolkits) {
  const fs::path stub = fs::path(TANDEM_NCCL_STUB_FOLDER) / "libnccl.so.2";
  const fs::path folder = fresh_folder("tandem_nccl_package"), packages = folder / "lib/python3.11/site-packages/nvidia/nccl/lib";
  const fs::path home = fresh_folder("tandem_nccl_toolkit");
  for (const fs::path& into : {packages, home / "lib64"}) {
    fs::create_directories(into);
    fs::copy_file(stub, into / "libnccl.so.2");
  }
  if (dlopen("libnccl.so.2", RTLD_NOW | RTLD_NOLOAD)) GTEST_SKIP() << "an NCCL is loaded in this process already";
  const Setting python("VIRTUAL_ENV", folder), toolkit("CUDA_HOME", home), nothing("TANDEM_CUDA_LIBRARIES", "");
  EXPECT_EQ(Library(spec_of(Which::nccl)).path(), packages / "libnccl.so.2");
}

// A second name is taken only where no place has the first.
TEST(CudaLibrary, SecondNamesServeWhereTheFirstIsMissing) {
  const fs::path folder = fresh_folder("tandem_second_name"), packages = folder / "lib/python3.11/site-packages/nvidia/small/lib";
  fs::create_directories(packages);
  fs::copy_file(kSmall, packages / "libtandem_plain.so");
  const Setting python("VIRTUAL_ENV", folder);
  LibrarySpec both = spec("libtandem_plain.so.2");
  both.sonames.emplace_back("libtandem_plain.so");
  EXPECT_EQ(Library(both).path(), packages / "libtandem_plain.so");
}

TEST(CudaLibrary, LacksAFunction) {
  const Setting setting("TANDEM_CUDA_LIBRARIES", kSmall.parent_path());
  const LibrarySpec small = spec(kSmall.filename());
  const Library library(small);
  EXPECT_EQ(library.function<int()>("tandem_small_answer")(), 42);
  try {
    library.function<int()>("tandem_small_question");
    ADD_FAILURE() << "it was found";
  } catch (const Error& error) {
    expect_parts(error.message(), {"version 42", "tandem_small_question", "pip install small"});
  }
}

TEST(CudaLibrary, LoadedOnesGoBeforeTheToolkit) {
  const fs::path loaded = TANDEM_LOADED_LIBRARY, home = fresh_folder("tandem_toolkit");
  const LibrarySpec named = spec(loaded.filename());
  {
    const Setting setting("TANDEM_CUDA_LIBRARIES", loaded.parent_path());
    EXPECT_EQ(Library(named).path(), loaded);
  }
  fs::create_directories(home / "lib64");
  fs::copy_file(kSmall, home / "lib64" / loaded.filename());
  const Setting nothing("TANDEM_CUDA_LIBRARIES", ""), toolkit("CUDA_HOME", home);
  EXPECT_EQ(Library(named).path(), loaded);
}

}  // namespace
}  // namespace tandem::cuda
