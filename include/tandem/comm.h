// The ranks that communicate, for programs that are a rank themselves. Public; belongs to comm.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/error.h"

namespace tandem {

// One rank's place among N, which Context::set_communicator() takes. Copies share it. Making one never waits: ranks meet at the first
// Context::prepare() or run() that uses it, within its rendezvous deadline. After a rank has failed it is of no more use; make another.
class Communicator {
 public:
  // N ranks that are threads of this process, by rank.
  static std::vector<Communicator> in_process(int size);
  // Processes of one user on one host that all give the same `name` and size, and each its own rank. Communicators of one name are told
  // apart by the order in which each process makes them. Throws Error(invalid_argument).
  static Communicator on_host(const std::string& name, int rank, int size);
  // Rank and size as torchrun (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), mpirun (OMPI_COMM_WORLD_*) or srun (SLURM_*) set them.
  // Throws Error(invalid_argument) naming what is not set, Error(unsupported) for ranks on several hosts.
  static Communicator from_environment();

  int rank() const;
  int size() const;
  // The rank's number among those of its host, as the launcher counts; the rank itself where ranks share one host.
  int local_rank() const;
  // Ends the waits of all ranks that have met, now and from now on. Callable from any thread.
  void abort(std::string_view reason) const;

  struct State;
  const std::shared_ptr<State>& shared_state() const { return state_; }

 private:
  explicit Communicator(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace tandem
