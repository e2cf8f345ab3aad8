#include "comm/communicator.h"

#include <charconv>
#include <cstdlib>
#include <map>
#include <numeric>

#include "comm/shm/meeting.h"
#include "core/check.h"

namespace tandem {
namespace {

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

int number(const char* name) {
  const char* text = variable(name);
  if (!text) fail(ErrorCode::invalid_argument, "{} is not set in the environment", name);
  int value = -1;
  const std::string_view view(text);
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
  if (error != std::errc{} || end != view.data() + view.size() || value < 0) fail(ErrorCode::invalid_argument, "{} is '{}', expected a number", name, text);
  return value;
}

// The variables of one launcher. `here`: how many of the ranks are on this host; `job`: what no other job of this user has.
struct Launcher {
  const char *rank, *size, *local_rank, *here;
  std::vector<const char*> job;
};

const std::vector<Launcher>& launchers() {
  static const std::vector<Launcher> list = {
      {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"}},
      {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"}},
      {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", nullptr, {"SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEPID"}},
  };
  return list;
}

void require_one_host(const Launcher& launcher, int size) {
  const int nodes = variable("SLURM_NNODES") && !launcher.here ? number("SLURM_NNODES") : 1;
  const int here = launcher.here && variable(launcher.here) ? number(launcher.here) : size;
  if (nodes > 1 || here != size)
    fail(ErrorCode::unsupported, "the {} ranks are on several hosts; this build joins ranks of one host only, over shared memory", size);
}

}  // namespace

std::vector<Communicator> Communicator::in_process(int size) {
  const auto region = ShmRegion::create(size);
  std::vector<Communicator> all;
  for (int rank = 0; rank < size; ++rank) {
    auto state = std::make_shared<State>();
    state->rank = state->local_rank = rank;
    state->size = size;
    state->region = region;
    all.push_back(Communicator(std::move(state)));
  }
  return all;
}

Communicator Communicator::on_host(const std::string& name, int rank, int size) {
  if (size < 1 || rank < 0 || rank >= size) fail(ErrorCode::invalid_argument, "there is no rank {} of {}", rank, size);
  static std::mutex mutex;
  static std::map<std::string, int> made;
  auto state = std::make_shared<State>();
  state->rank = state->local_rank = rank;
  state->size = size;
  const std::lock_guard lock(mutex);
  state->name = fmt::format("{}#{}", name, made[name]++);
  return Communicator(std::move(state));
}

Communicator Communicator::from_environment() {
  for (const Launcher& launcher : launchers()) {
    if (!variable(launcher.rank) || (!variable(launcher.size) && !variable(launcher.local_rank))) continue;
    const int rank = number(launcher.rank), size = number(launcher.size);
    require_one_host(launcher, size);
    std::string name;
    for (const char* part : launcher.job)
      if (const char* value = variable(part)) name += fmt::format("{}={};", part, value);
    if (name.empty()) fail(ErrorCode::invalid_argument, "{} is not set in the environment", launcher.job.front());
    Communicator made = on_host(name, rank, size);
    if (variable(launcher.local_rank)) made.state_->local_rank = number(launcher.local_rank);
    return made;
  }
  fail(ErrorCode::invalid_argument,
       "no launcher has said which rank this is: neither RANK and WORLD_SIZE (torchrun), OMPI_COMM_WORLD_RANK (mpirun) nor SLURM_PROCID (srun) is set");
}

int Communicator::rank() const { return state_->rank; }
int Communicator::size() const { return state_->size; }
int Communicator::local_rank() const { return state_->local_rank; }

void Communicator::abort(std::string_view reason) const {
  std::shared_ptr<ShmRegion> region;
  {
    const std::lock_guard lock(state_->mutex);
    region = state_->region;
  }
  if (region) region->abort(ErrorCode::aborted, state_->rank, fmt::format("aborted: {}", reason));
}

std::unique_ptr<Group> Communicator::State::join(Deadline deadline) {
  std::shared_ptr<ShmRegion> known;
  {
    const std::lock_guard lock(mutex);
    known = region;
  }
  if (!known) known = meet(name, rank, size, deadline);
  {
    const std::lock_guard lock(mutex);
    region = known;
  }
  if (!world) world = known->attach(rank, deadline);
  std::vector<int> everyone(static_cast<std::size_t>(size));
  std::iota(everyone.begin(), everyone.end(), 0);
  return world->split({everyone}, deadline);
}

}  // namespace tandem
