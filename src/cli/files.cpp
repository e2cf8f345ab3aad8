#include "cli/files.h"

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "tandem/error.h"

namespace tandem::cli {

void write_text(const std::string& path, const std::string& text) {
  const std::string part = path + "." + std::to_string(::getpid()) + ".part";
  std::ofstream file(part, std::ios::binary);
  file << text;
  file.close();
  if (file && std::rename(part.c_str(), path.c_str()) == 0) return;
  std::error_code none;
  std::filesystem::remove(part, none);
  throw Error(ErrorCode::io, "cannot write " + path);
}

}  // namespace tandem::cli
