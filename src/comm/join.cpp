// The ways to become a rank: processes that meet at an address, and threads of one process.
#include <unistd.h>

#include "comm/address.h"
#include "comm/launch.h"
#include "comm/shm/rendezvous.h"
#include "core/check.h"
#include "core/seconds.h"
#include "tandem/group.h"

namespace tandem {
namespace {

Waiting waiting_of(const GroupOptions& options) {
  return {nanoseconds("rendezvous", options.rendezvous_deadline_s), nanoseconds("step", options.step_deadline_s), options.stop};
}

// FNV-1a: the same for all builds that may meet.
std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

std::unique_ptr<Group> Group::join(int rank, int size, const std::string& address, const GroupOptions& options) {
  if (size < 1 || size > shm::kMaxWorld)
    fail(ErrorCode::invalid_argument, "a group of {} ranks: 1 to {} are possible on one host", size, shm::kMaxWorld);
  if (rank < 0 || rank >= size) fail(ErrorCode::invalid_argument, "rank {} is outside a group of {} ranks", rank, size);
  const Address place = parse_address(address);
  require_this_host(place.host);
  // All names of this host are the same place.
  const std::string name = fmt::format("tandem/{}/{}/{:016x}", ::getuid(), place.port, hash_of(options.run_id));
  return shm::meet({rank, size, name, address, waiting_of(options)});
}

std::unique_ptr<Group> Group::from_env(const GroupOptions& options) {
  const Launch launch = read_launch();
  GroupOptions all = options;
  if (all.run_id.empty()) all.run_id = launch.run_id;
  return join(launch.rank, launch.size, launch.address, all);
}

std::vector<std::unique_ptr<Group>> Group::in_process(int size, const GroupOptions& options) {
  const auto region = ShmRegion::create(size);
  for (int rank = 0; rank < size; ++rank) region->enter(rank);
  std::vector<std::unique_ptr<Group>> groups;
  for (int rank = 0; rank < size; ++rank)
    groups.push_back(region->wait_for_all(rank, Deadline::after(kRendezvousDeadline), waiting_of(options), {}));
  return groups;
}

}  // namespace tandem
