// A model of how GPUs exchange through each other's memory (src/comm/peer/layout.h), small enough that all its interleavings can be tried.
// Independent of the kernels: what it knows is the protocol, written down once more.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace tandem::testing {

// Words that say themselves whether they have arrived. In a call of `size` words, thread i of every rank pushes word i into a slot at every
// peer, waits for the peers' word i in its own slot, and empties it. A store takes effect at any time after it was made, in any order with
// others; all stores of a rank to its own memory have taken effect when its kernel ends.
struct WordProtocol {
  int ranks = 2;
  std::vector<int> sizes;        // of the calls, in order
  std::vector<int> baked_slots;  // by call; empty: counted
  int slots = 2;
  bool counts_per_word = true;  // the calls that use a word are counted, not all calls
  bool wipes_at_once = true;    // else the following call empties the slot of the one before, as far as it has threads
  bool kernel_border = true;    // a call begins when the one before has ended on its rank; else each thread goes on alone
};

// Data with a counter of arrivals: in each step a rank pushes its words to every peer, raises its counter there once they lie there, waits
// for the counters of all peers, and reads.
struct ArrivalProtocol {
  int ranks = 2;
  int words = 1;
  int steps = 4;
  int slots = 2;
  bool fence = true;  // the counter is raised after the words have arrived
};

// Calls in a room (src/comm/peer/room_layout.h). On each rank two streams work side by side. One pushes a word to every rank's `there` for
// each group, and, once the other stream has read a group, to every rank's `back`; it announces each of these, and reads a group of `back`
// after it has pushed the next. The other reads `there`, group by group, once everyone has announced it. A call begins when both streams
// are through with the one before.
struct RoomProtocol {
  int ranks = 2;
  std::vector<int> groups;   // of the calls, in order
  bool fence = true;         // an event is announced after the words have arrived
  bool awaits_back = true;   // what comes back is awaited before it is read
  bool back_follows = true;  // a group is pushed back after it was read
};

struct Search {
  std::optional<std::string> found;  // what goes wrong, and after how many steps
  std::size_t states = 0;            // different ones that were seen
  bool complete = false;             // all were, or something was found
};

Search search(const WordProtocol& protocol, std::size_t most_states);
Search search(const ArrivalProtocol& protocol, std::size_t most_states);
Search search(const RoomProtocol& protocol, std::size_t most_states);

}  // namespace tandem::testing
