// What a launcher says in the environment of the ranks it starts.
#pragma once

#include <string>

namespace tandem {

struct Launch {
  int rank = 0, size = 1;
  std::string address;  // HOST:PORT
  std::string run_id;   // what no other run of this user on this host has, as far as the launcher says
};

// Throws as Group::from_env().
Launch read_launch();

}  // namespace tandem
