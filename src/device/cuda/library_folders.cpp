// Where CUDA's libraries lie on machines as they are: toolkits, and the wheels that Python frameworks bring.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "device/cuda/library.h"

namespace tandem::cuda {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// Folders in `parent` whose names start with `prefix`, newest version last in the alphabet first.
std::vector<fs::path> subfolders(const fs::path& parent, std::string_view prefix) {
  std::vector<fs::path> found;
  std::error_code none;
  for (fs::directory_iterator it(parent, none), end; !none && it != end; it.increment(none))
    if (it->path().filename().string().starts_with(prefix) && it->is_directory(none)) found.push_back(it->path());
  std::ranges::sort(found, std::greater{});
  return found;
}

void add_if_there(std::vector<std::string>& folders, const fs::path& folder) {
  std::error_code none;
  if (!fs::is_directory(folder, none)) return;
  const bool known = std::ranges::any_of(folders, [&](const std::string& other) { return fs::equivalent(other, folder, none); });
  if (!known) folders.push_back(folder.string());
}

// prefix/lib/python3.*/{site,dist}-packages/nvidia/*/lib
void add_packages(std::vector<std::string>& folders, const fs::path& prefix) {
  for (const fs::path& python : subfolders(prefix / "lib", "python3"))
    for (const char* packages : {"site-packages", "dist-packages"})
      for (const fs::path& package : subfolders(python / packages / "nvidia", "")) add_if_there(folders, package / "lib");
}

// "home" of a virtual environment: the folder of the Python that it was made from; empty where it keeps to itself.
fs::path outer_python(const fs::path& environment) {
  std::ifstream file(environment / "pyvenv.cfg");
  std::string home;
  bool sees_outer = false;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key, equals, value;
    words >> key >> equals >> value;
    if (key == "home") home = value;
    if (key == "include-system-site-packages") sees_outer = value == "true";
  }
  return sees_outer ? fs::path(home) : fs::path();
}

// Of the python3 that a shell would start, which is not started.
void add_python_on_path(std::vector<std::string>& folders) {
  std::istringstream parts(variable("PATH"));
  std::error_code none;
  for (std::string part; std::getline(parts, part, ':');) {
    const fs::path python = fs::path(part) / "python3";
    if (part.empty() || !fs::exists(python, none)) continue;
    const fs::path environment = fs::path(part).parent_path();
    add_packages(folders, environment);
    if (fs::exists(environment / "pyvenv.cfg", none)) {
      const fs::path outer = outer_python(environment);
      if (!outer.empty()) add_packages(folders, outer.parent_path());
    } else {
      const fs::path real = fs::canonical(python, none);
      if (!none) add_packages(folders, real.parent_path().parent_path());
    }
    return;
  }
}

}  // namespace

std::vector<std::string> toolkit_library_folders() {
  std::vector<fs::path> homes;
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"})
    if (const std::string home = variable(name); !home.empty()) homes.emplace_back(home);
  for (const fs::path& home : subfolders("/usr/local", "cuda")) homes.push_back(home);
  std::vector<std::string> folders;
  for (const fs::path& home : homes) {
    add_if_there(folders, home / "lib64");
    add_if_there(folders, home / "targets" / "x86_64-linux" / "lib");
  }
  return folders;
}

std::vector<std::string> package_library_folders() {
  std::vector<std::string> folders;
  if (const std::string environment = variable("VIRTUAL_ENV"); !environment.empty()) add_packages(folders, environment);
  add_python_on_path(folders);
  if (const std::string home = variable("HOME"); !home.empty()) add_packages(folders, fs::path(home) / ".local");
  for (const char* prefix : {"/usr/local", "/usr"}) add_packages(folders, prefix);
  return folders;
}

}  // namespace tandem::cuda
