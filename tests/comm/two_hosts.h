// Two processes that are apart as those of two hosts are, on one machine.
#pragma once

#include <functional>
#include <string>

#include "comm/rank_processes.h"
#include "comm/tcp_pair.h"

namespace tandem::test {

enum class Apart {
  names,     // by what each is told that its host is called
  networks,  // each in a network, with a host name and shared memory of its own, joined by a pair of interfaces; needs root
};

// What the name of the host is, of its interface to the other one, and where rank 0 can be reached.
std::string host_name(int rank);
std::string interface_of(Apart apart);
std::string address_of_rank_0(Apart apart);

// Why processes cannot be apart so here; empty if they can.
std::string cannot_be(Apart apart);

// Forks two processes that are apart; life(rank) begins once both are there. `life` is not run where that goes wrong: Error(internal).
std::vector<RankOutcome> on_two_hosts(Apart apart, const std::function<void(int)>& life, std::chrono::nanoseconds limit);
// With a group of the two, over TCP.
std::vector<RankOutcome> ranks_on_two_hosts(Apart apart, const std::function<void(TcpPair&)>& body,
                                            std::chrono::nanoseconds limit = std::chrono::seconds(60));

}  // namespace tandem::test
