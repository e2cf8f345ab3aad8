// What a call throws, for tests of errors.
#pragma once

#include <gtest/gtest.h>

#include "tandem/error.h"

namespace tandem::testing {

// Fails the test if nothing is thrown; exceptions other than Error come out.
template <typename F>
Error thrown(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorCode::internal, "nothing was thrown");
}

}  // namespace tandem::testing
