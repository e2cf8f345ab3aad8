// Which host a process is on, as ranks tell one another. Public; belongs to comm.
#pragma once

#include <string>

namespace tandem {

struct Host {
  std::string name;  // for people
  // The same for processes that can hand one another memory: those under one kernel and in one network namespace.
  std::string id;
};

// Of the thread that calls. For tests on one machine TANDEM_TEST_HOST in the environment says another one, as both.
Host this_host();

}  // namespace tandem
