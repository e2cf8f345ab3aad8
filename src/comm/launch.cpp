#include "comm/launch.h"

#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "core/check.h"

namespace tandem {
namespace {

// The variables of one launcher, each as the names it may have.
struct Launcher {
  const char* name;
  const char *rank, *size;
  std::initializer_list<const char*> local_rank, local_size, hosts, run_id;
};

// The first that has set a rank counts: torchrun may itself run under another.
const Launcher kLaunchers[] = {
    {"torchrun", "RANK", "WORLD_SIZE", {"LOCAL_RANK"}, {"LOCAL_WORLD_SIZE"}, {}, {"TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"}},
    {"mpirun",
     "OMPI_COMM_WORLD_RANK",
     "OMPI_COMM_WORLD_SIZE",
     {"OMPI_COMM_WORLD_LOCAL_RANK"},
     {"OMPI_COMM_WORLD_LOCAL_SIZE"},
     {},
     {"PMIX_NAMESPACE"}},
    {"mpiexec",
     "PMI_RANK",
     "PMI_SIZE",
     {"MPI_LOCALRANKID"},
     {"MPI_LOCALNRANKS"},
     {"SLURM_STEP_NUM_NODES"},
     {"PMI_JOBID", "SLURM_JOB_ID", "SLURM_STEP_ID"}},
    {"srun",
     "SLURM_PROCID",
     "SLURM_NTASKS",
     {"SLURM_LOCALID"},
     {},
     {"SLURM_STEP_NUM_NODES", "SLURM_NNODES"},
     {"SLURM_JOB_ID", "SLURM_STEP_ID"}},
};

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

int number(const char* name) {
  const std::string_view text = variable(name);
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || value < 0)
    fail(ErrorCode::invalid_argument, "the variable {} is '{}', expected a number", name, text);
  return value;
}

// The first of the names that is set.
std::optional<int> number_of(std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (!variable(name).empty()) return number(name);
  return std::nullopt;
}

void require_one_host(const Launcher& launcher, const Launch& launch) {
  const int local_size = number_of(launcher.local_size).value_or(launch.size),
            local_rank = number_of(launcher.local_rank).value_or(launch.rank);
  if (local_size == launch.size && local_rank == launch.rank && number_of(launcher.hosts).value_or(1) == 1) return;
  fail(ErrorCode::unsupported,
       "{} says that rank {} of {} is number {} on its host: ranks on more than one host are not supported yet, start all of them on one; "
       "on GPUs a communicator of NCCL that they made can be given to contexts (group_from_nccl)",
       launcher.name, launch.rank, launch.size, local_rank);
}

std::string address() {
  std::string host(variable("MASTER_ADDR"));
  if (host.empty()) host = "127.0.0.1";
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  return fmt::format("{}:{}", host, variable("MASTER_PORT").empty() ? 29500 : number("MASTER_PORT"));
}

}  // namespace

Launch read_launch() {
  for (const Launcher& launcher : kLaunchers) {
    if (variable(launcher.rank).empty()) continue;
    if (variable(launcher.size).empty())
      fail(ErrorCode::invalid_argument, "the variable {} is set, {} is not: they say which of how many ranks this is", launcher.rank,
           launcher.size);
    Launch launch{number(launcher.rank), number(launcher.size), address(), {}};
    require_one_host(launcher, launch);
    for (const char* name : launcher.run_id) launch.run_id += fmt::format("{}/", variable(name));
    return launch;
  }
  fail(ErrorCode::invalid_argument,
       "nothing says which rank this is: none of RANK (torchrun), OMPI_COMM_WORLD_RANK (mpirun), PMI_RANK (mpiexec), SLURM_PROCID (srun) "
       "is set");
}

}  // namespace tandem
