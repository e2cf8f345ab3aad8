// Recorded models and options, for the tests of the API.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "tandem/build.h"

namespace tandem::testing {

inline std::string model_path(const std::string& name) { return std::string(TANDEM_MODELS) + "/" + name + ".onnx"; }

inline BuildOptions on(const std::string& mesh) {
  BuildOptions options;
  options.mesh = mesh;
  return options;
}

template <typename Failure>
void expect_says(const Failure& error, const std::string& words) {
  EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
}

}  // namespace tandem::testing
