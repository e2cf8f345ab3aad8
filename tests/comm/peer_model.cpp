#include "comm/peer_model.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <unordered_map>

namespace tandem::testing {
namespace {

using Bytes = std::string;  // a state, or a part of one

// Breadth first, so that what is found is found in the fewest steps. Machine: State start(); Bytes of(state); void each_next(state, visit);
// the reason a state is wrong; whether all is done in it.
template <typename Machine>
Search explore(const Machine& machine, std::size_t most_states) {
  using State = typename Machine::State;
  Search result;
  std::unordered_map<Bytes, int> depth;
  std::deque<State> open;
  const auto reach = [&](const State& state, int at) {
    if (depth.emplace(machine.bytes(state), at).second) open.push_back(state);
  };
  reach(machine.start(), 0);
  while (!open.empty() && depth.size() < most_states) {
    const State state = std::move(open.front());
    open.pop_front();
    const int at = depth.at(machine.bytes(state));
    if (!state.wrong.empty()) {
      result.found = state.wrong + " after " + std::to_string(at) + " steps";
      break;
    }
    bool moved = false;
    machine.each_next(state, [&](const State& next) {
      moved = true;
      reach(next, at + 1);
    });
    if (!moved && !machine.done(state)) {
      result.found = "nothing can go on after " + std::to_string(at) + " steps";
      break;
    }
  }
  result.states = depth.size();
  result.complete = result.found || open.empty();
  return result;
}

// A store on its way.
struct Store {
  std::uint8_t rank, slot, sender, word, value;  // where, and what; value 0: empty
  auto operator<=>(const Store&) const = default;
};

void append(Bytes& to, std::vector<Store> stores) {
  std::ranges::sort(stores);
  for (const Store& s : stores)
    for (const std::uint8_t byte : {s.rank, s.slot, s.sender, s.word, s.value}) to.push_back(static_cast<char>(byte));
}

class Words {
 public:
  struct Thread {
    std::uint8_t call = 0;  // the one it is in
    std::uint8_t next = 0;  // 0: it has not pushed; p: it waits for the p-th peer after its rank; ranks: it is done with the call
  };
  struct State {
    std::vector<Thread> threads;       // [rank][word]
    std::vector<std::uint8_t> memory;  // [rank][slot][sender][word]: 1 + the call; 0: empty
    std::vector<Store> stores;
    std::string wrong;
  };

  explicit Words(const WordProtocol& protocol) : p_(protocol), width_(*std::ranges::max_element(p_.sizes)) {}

  State start() const {
    return {std::vector<Thread>(static_cast<std::size_t>(p_.ranks * width_)),
            std::vector<std::uint8_t>(static_cast<std::size_t>(p_.ranks * p_.slots * p_.ranks * width_)),
            {},
            {}};
  }
  Bytes bytes(const State& s) const {
    Bytes all = s.wrong;
    for (const Thread& t : s.threads) all += {static_cast<char>(t.call), static_cast<char>(t.next)};
    for (const std::uint8_t m : s.memory) all.push_back(static_cast<char>(m));
    append(all, s.stores);
    return all;
  }
  bool done(const State& s) const {
    return std::ranges::all_of(s.threads, [&](const Thread& t) { return t.call == p_.sizes.size(); });
  }

  template <typename Visit>
  void each_next(const State& s, const Visit& visit) const {
    for (std::size_t i = 0; i < s.stores.size(); ++i) {
      State next = s;
      const Store store = s.stores[i];
      next.stores.erase(next.stores.begin() + static_cast<std::ptrdiff_t>(i));
      next.memory[place(store.rank, store.slot, store.sender, store.word)] = store.value;
      visit(next);
    }
    for (int rank = 0; rank < p_.ranks; ++rank)
      for (int word = 0; word < width_; ++word) step(s, rank, word, visit);
    if (p_.kernel_border)
      for (int rank = 0; rank < p_.ranks; ++rank) end_kernel(s, rank, visit);
  }

 private:
  std::size_t at(int rank, int word) const { return static_cast<std::size_t>(rank * width_ + word); }
  std::size_t place(int rank, int slot, int sender, int word) const {
    return static_cast<std::size_t>(((rank * p_.slots + slot) * p_.ranks + sender) * width_ + word);
  }
  int size_of(int call) const { return p_.sizes[static_cast<std::size_t>(call)]; }
  int slot_of(int call, int word) const {
    if (!p_.baked_slots.empty()) return p_.baked_slots[static_cast<std::size_t>(call)];
    int count = 0;
    for (int c = 0; c < call; ++c) count += !p_.counts_per_word || size_of(c) > word;
    return count % p_.slots;
  }

  template <typename Visit>
  void step(const State& s, int rank, int word, const Visit& visit) const {
    const Thread t = s.threads[at(rank, word)];
    if (t.call == p_.sizes.size()) return;
    const int call = t.call;
    if (word >= size_of(call) || t.next == p_.ranks) {
      if (p_.kernel_border) return;  // the whole kernel ends at once
      State next = s;
      next.threads[at(rank, word)] = {static_cast<std::uint8_t>(call + 1), 0};
      return visit(next);
    }
    State next = s;
    Thread& mine = next.threads[at(rank, word)];
    const int slot = slot_of(call, word);
    if (t.next == 0) {
      for (int peer = 0; peer < p_.ranks; ++peer) {
        if (peer == rank) continue;
        if (!p_.wipes_at_once && call > 0) next.memory[place(rank, slot_of(call - 1, word), peer, word)] = 0;
        next.stores.push_back(store_at(peer, slot, rank, word, call + 1));
      }
      mine.next = 1;
      return visit(next);
    }
    const int peer = (rank + t.next) % p_.ranks;
    const std::uint8_t value = s.memory[place(rank, slot, peer, word)];
    if (value == 0) return;
    if (value != call + 1)
      next.wrong =
          "rank " + std::to_string(rank) + " reads in call " + std::to_string(call) + " what was sent in call " + std::to_string(value - 1);
    if (p_.wipes_at_once) next.stores.push_back(store_at(rank, slot, peer, word, 0));
    ++mine.next;
    visit(next);
  }

  template <typename Visit>
  void end_kernel(const State& s, int rank, const Visit& visit) const {
    const int call = s.threads[at(rank, 0)].call;
    if (call == static_cast<int>(p_.sizes.size())) return;
    for (int word = 0; word < size_of(call); ++word)
      if (s.threads[at(rank, word)].next != p_.ranks) return;
    for (const Store& store : s.stores)
      if (store.rank == rank && store.value == 0) return;  // its own stores to its own memory
    State next = s;
    for (int word = 0; word < width_; ++word) next.threads[at(rank, word)] = {static_cast<std::uint8_t>(call + 1), 0};
    visit(next);
  }

  static Store store_at(int rank, int slot, int sender, int word, int value) {
    return {static_cast<std::uint8_t>(rank), static_cast<std::uint8_t>(slot), static_cast<std::uint8_t>(sender),
            static_cast<std::uint8_t>(word), static_cast<std::uint8_t>(value)};
  }

  WordProtocol p_;
  int width_;
};

class Arrivals {
 public:
  struct Rank {
    std::uint8_t step = 0;   // completed
    std::uint8_t phase = 0;  // 0 to push, 1 to raise the counters, 2 to wait and read
  };
  struct State {
    std::vector<Rank> ranks;
    std::vector<std::uint8_t> memory;    // [rank][slot][sender][word]: the step
    std::vector<std::uint8_t> counters;  // [rank][sender]
    std::vector<Store> stores;           // word == words: of a counter
    std::string wrong;
  };

  explicit Arrivals(const ArrivalProtocol& protocol) : p_(protocol) {}

  State start() const {
    return {std::vector<Rank>(static_cast<std::size_t>(p_.ranks)),
            std::vector<std::uint8_t>(static_cast<std::size_t>(p_.ranks * p_.slots * p_.ranks * p_.words)),
            std::vector<std::uint8_t>(static_cast<std::size_t>(p_.ranks * p_.ranks)),
            {},
            {}};
  }
  Bytes bytes(const State& s) const {
    Bytes all = s.wrong;
    for (const Rank& r : s.ranks) all += {static_cast<char>(r.step), static_cast<char>(r.phase)};
    for (const std::uint8_t m : s.memory) all.push_back(static_cast<char>(m));
    for (const std::uint8_t c : s.counters) all.push_back(static_cast<char>(c));
    append(all, s.stores);
    return all;
  }
  bool done(const State& s) const {
    return std::ranges::all_of(s.ranks, [&](const Rank& r) { return r.step == p_.steps; });
  }

  template <typename Visit>
  void each_next(const State& s, const Visit& visit) const {
    for (std::size_t i = 0; i < s.stores.size(); ++i) {
      State next = s;
      const Store store = s.stores[i];
      next.stores.erase(next.stores.begin() + static_cast<std::ptrdiff_t>(i));
      if (store.word == p_.words) next.counters[static_cast<std::size_t>(store.rank * p_.ranks + store.sender)] = store.value;
      else next.memory[place(store.rank, store.slot, store.sender, store.word)] = store.value;
      visit(next);
    }
    for (int rank = 0; rank < p_.ranks; ++rank) step(s, rank, visit);
  }

 private:
  std::size_t place(int rank, int slot, int sender, int word) const {
    return static_cast<std::size_t>(((rank * p_.slots + slot) * p_.ranks + sender) * p_.words + word);
  }

  template <typename Visit>
  void step(const State& s, int rank, const Visit& visit) const {
    const Rank r = s.ranks[static_cast<std::size_t>(rank)];
    if (r.step == p_.steps) return;
    const auto now = static_cast<std::uint8_t>(r.step + 1);
    const auto me = static_cast<std::uint8_t>(rank), slot = static_cast<std::uint8_t>(now % p_.slots);
    State next = s;
    Rank& mine = next.ranks[static_cast<std::size_t>(rank)];
    if (r.phase == 0) {
      for (int peer = 0; peer < p_.ranks; ++peer)
        for (int word = 0; peer != rank && word < p_.words; ++word)
          next.stores.push_back({static_cast<std::uint8_t>(peer), slot, me, static_cast<std::uint8_t>(word), now});
      mine.phase = 1;
      return visit(next);
    }
    if (r.phase == 1) {
      for (const Store& store : s.stores)
        if (p_.fence && store.sender == rank) return;
      for (int peer = 0; peer < p_.ranks; ++peer)
        if (peer != rank) next.stores.push_back({static_cast<std::uint8_t>(peer), 0, me, static_cast<std::uint8_t>(p_.words), now});
      mine.phase = 2;
      return visit(next);
    }
    for (int peer = 0; peer < p_.ranks; ++peer) {
      if (peer == rank) continue;
      if (s.counters[static_cast<std::size_t>(rank * p_.ranks + peer)] < now) return;
      for (int word = 0; word < p_.words; ++word)
        if (const int value = s.memory[place(rank, slot, peer, word)]; value != now)
          next.wrong =
              "rank " + std::to_string(rank) + " reads in step " + std::to_string(now) + " what was sent in step " + std::to_string(value);
    }
    mine = {now, 0};
    visit(next);
  }

  ArrivalProtocol p_;
};

class Room {
 public:
  struct Rank {
    std::uint8_t call = 0;
    std::uint8_t reads = 0;  // groups of `there` that its first stream has read
    std::uint8_t step = 0;   // of its second stream: pushes and announcements of `there`, then pushes, announcements and looks at `back`
  };
  struct State {
    std::vector<Rank> ranks;
    std::vector<std::uint8_t> memory;  // [rank][area][group][sender]: 1 + the call
    std::vector<std::uint8_t> words;   // [rank][area][group][sender]: the call announced, from 1
    std::vector<Store> stores;         // slot: the place; word 1: of an announcement
    std::string wrong;
  };

  explicit Room(const RoomProtocol& protocol) : p_(protocol), most_(*std::ranges::max_element(p_.groups)) {}

  State start() const {
    const auto all = static_cast<std::size_t>(p_.ranks * 2 * most_ * p_.ranks);
    return {std::vector<Rank>(static_cast<std::size_t>(p_.ranks)), std::vector<std::uint8_t>(all), std::vector<std::uint8_t>(all), {}, {}};
  }
  Bytes bytes(const State& s) const {
    Bytes all = s.wrong;
    for (const Rank& r : s.ranks) all += {static_cast<char>(r.call), static_cast<char>(r.reads), static_cast<char>(r.step)};
    for (const std::uint8_t m : s.memory) all.push_back(static_cast<char>(m));
    for (const std::uint8_t w : s.words) all.push_back(static_cast<char>(w));
    append(all, s.stores);
    return all;
  }
  bool done(const State& s) const {
    return std::ranges::all_of(s.ranks, [&](const Rank& r) { return r.call == p_.groups.size(); });
  }

  template <typename Visit>
  void each_next(const State& s, const Visit& visit) const {
    for (std::size_t i = 0; i < s.stores.size(); ++i) {
      State next = s;
      const Store store = s.stores[i];
      next.stores.erase(next.stores.begin() + static_cast<std::ptrdiff_t>(i));
      (store.word == 1 ? next.words : next.memory)[static_cast<std::size_t>(store.rank * 2 * most_ * p_.ranks + store.slot)] = store.value;
      visit(next);
    }
    for (int rank = 0; rank < p_.ranks; ++rank) {
      const Rank& r = s.ranks[static_cast<std::size_t>(rank)];
      if (r.call == p_.groups.size()) continue;
      read_there(s, rank, visit);
      second_stream(s, rank, visit);
    }
  }

 private:
  static constexpr int kThere = 0, kBack = 1;
  // A group in `back`: pushed, announced, and then the group before it read; after the last group that one too.
  static constexpr int kStepsOfThere = 2, kStepsOfBack = 3;

  int slot(int area, int group, int sender) const { return (area * most_ + group) * p_.ranks + sender; }
  std::size_t place(int rank, int area, int group, int sender) const {
    return static_cast<std::size_t>(rank * 2 * most_ * p_.ranks + slot(area, group, sender));
  }
  int groups_of(const Rank& r) const { return p_.groups[r.call]; }

  void send(State& s, int rank, int area, int group, bool announces) const {
    for (int peer = 0; peer < p_.ranks; ++peer)
      s.stores.push_back({static_cast<std::uint8_t>(peer), static_cast<std::uint8_t>(slot(area, group, rank)),
                          static_cast<std::uint8_t>(rank), static_cast<std::uint8_t>(announces),
                          static_cast<std::uint8_t>(s.ranks[static_cast<std::size_t>(rank)].call + 1)});
  }

  // False: not everyone has announced it.
  bool read(State& s, int rank, int area, int group, bool awaits) const {
    const int now = s.ranks[static_cast<std::size_t>(rank)].call + 1;
    for (int sender = 0; sender < p_.ranks && awaits; ++sender)
      if (s.words[place(rank, area, group, sender)] < now) return false;
    for (int sender = 0; sender < p_.ranks; ++sender)
      if (const int value = s.memory[place(rank, area, group, sender)]; value != now)
        s.wrong = "rank " + std::to_string(rank) + " reads in call " + std::to_string(now - 1) + " what was sent in call " +
                  std::to_string(value - 1);
    return true;
  }

  template <typename Visit>
  void read_there(const State& s, int rank, const Visit& visit) const {
    State next = s;
    Rank& mine = next.ranks[static_cast<std::size_t>(rank)];
    if (mine.reads == groups_of(mine) || !read(next, rank, kThere, mine.reads, true)) return;
    ++mine.reads;
    visit(next);
  }

  bool on_its_way(const State& s, int rank) const {
    return std::ranges::any_of(s.stores, [&](const Store& store) { return store.sender == rank && store.word == 0; });
  }

  template <typename Visit>
  void second_stream(const State& s, int rank, const Visit& visit) const {
    State next = s;
    Rank& mine = next.ranks[static_cast<std::size_t>(rank)];
    const int groups = groups_of(mine), there = kStepsOfThere * groups;
    if (mine.step < there) {
      const bool announces = mine.step % kStepsOfThere == 1;
      if (announces && p_.fence && on_its_way(s, rank)) return;
      send(next, rank, kThere, mine.step / kStepsOfThere, announces);
    } else {
      const int group = (mine.step - there) / kStepsOfBack, part = (mine.step - there) % kStepsOfBack;
      if (part == 0 && group < groups && p_.back_follows && mine.reads <= group) return;
      if (part == 1 && p_.fence && on_its_way(s, rank)) return;
      if (part < 2) send(next, rank, kBack, group, part == 1);
      else if (group > 0 && !read(next, rank, kBack, group - 1, p_.awaits_back)) return;
    }
    ++mine.step;
    if (mine.step == there + kStepsOfBack * groups) return end_call(next, rank, visit);
    visit(next);
  }

  template <typename Visit>
  void end_call(State& next, int rank, const Visit& visit) const {
    Rank& mine = next.ranks[static_cast<std::size_t>(rank)];
    if (mine.reads < groups_of(mine) || !read(next, rank, kBack, groups_of(mine) - 1, p_.awaits_back)) return;
    mine = {static_cast<std::uint8_t>(mine.call + 1), 0, 0};
    visit(next);
  }

  RoomProtocol p_;
  int most_;
};

}  // namespace

Search search(const WordProtocol& protocol, std::size_t most_states) { return explore(Words(protocol), most_states); }
Search search(const ArrivalProtocol& protocol, std::size_t most_states) { return explore(Arrivals(protocol), most_states); }
Search search(const RoomProtocol& protocol, std::size_t most_states) { return explore(Room(protocol), most_states); }

}  // namespace tandem::testing
