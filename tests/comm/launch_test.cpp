// What launchers say in the environment.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "comm/launch.h"
#include "core/check.h"
#include "tandem/group.h"

namespace tandem {
namespace {

// An environment with these of the launchers' variables and no others.
class Environment {
 public:
  explicit Environment(std::map<std::string, std::string> variables) : variables_(std::move(variables)) {
    for (const char* name :
         {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID",
          "TORCHELASTIC_RESTART_COUNT", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID", "SLURM_NNODES", "SLURM_STEP_NUM_NODES"})
      ::unsetenv(name);
    for (const auto& [name, value] : variables_) ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& [name, value] : variables_) ::unsetenv(name.c_str());
  }

 private:
  std::map<std::string, std::string> variables_;
};

void expect_refused(std::map<std::string, std::string> variables, ErrorCode code, const std::string& text) {
  const Environment environment(std::move(variables));
  try {
    read_launch();
    ADD_FAILURE() << "taken, though " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(error.message().find(text), std::string::npos) << error.what();
  }
}

TEST(Launch, Torchrun) {
  const Environment environment({{"RANK", "1"},
                                 {"WORLD_SIZE", "2"},
                                 {"LOCAL_RANK", "1"},
                                 {"LOCAL_WORLD_SIZE", "2"},
                                 {"MASTER_ADDR", "::1"},
                                 {"MASTER_PORT", "1234"},
                                 {"TORCHELASTIC_RUN_ID", "abc"},
                                 {"TORCHELASTIC_RESTART_COUNT", "3"},
                                 {"OMPI_COMM_WORLD_RANK", "7"}});
  const Launch launch = read_launch();
  EXPECT_EQ(launch.rank, 1);
  EXPECT_EQ(launch.size, 2);
  EXPECT_EQ(launch.address, "[::1]:1234");
  EXPECT_EQ(launch.run_id, "abc/3/");
}

TEST(Launch, ByHand) {
  const Environment environment({{"RANK", "0"}, {"WORLD_SIZE", "4"}});
  const Launch launch = read_launch();
  EXPECT_EQ(launch.address, "127.0.0.1:29500");
  EXPECT_EQ(launch.size, 4);
}

TEST(Launch, Mpirun) {
  const Environment environment({{"OMPI_COMM_WORLD_RANK", "2"},
                                 {"OMPI_COMM_WORLD_SIZE", "3"},
                                 {"OMPI_COMM_WORLD_LOCAL_RANK", "2"},
                                 {"OMPI_COMM_WORLD_LOCAL_SIZE", "3"},
                                 {"PMIX_NAMESPACE", "job-1"}});
  const Launch launch = read_launch();
  EXPECT_EQ(launch.rank, 2);
  EXPECT_EQ(launch.size, 3);
  EXPECT_EQ(launch.run_id, "job-1/");
}

TEST(Launch, Mpiexec) {
  const Environment environment({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}});
  const Launch launch = read_launch();
  EXPECT_EQ(launch.rank, 1);
  EXPECT_EQ(launch.size, 2);
}

TEST(Launch, Srun) {
  const Environment environment({{"SLURM_PROCID", "1"},
                                 {"SLURM_NTASKS", "2"},
                                 {"SLURM_LOCALID", "1"},
                                 {"SLURM_NNODES", "1"},
                                 {"SLURM_JOB_ID", "77"},
                                 {"SLURM_STEP_ID", "0"}});
  const Launch launch = read_launch();
  EXPECT_EQ(launch.rank, 1);
  EXPECT_EQ(launch.run_id, "77/0/");
}

TEST(Launch, NothingSet) { expect_refused({}, ErrorCode::invalid_argument, "none of RANK (torchrun), OMPI_COMM_WORLD_RANK"); }
TEST(Launch, HalfSet) { expect_refused({{"RANK", "0"}}, ErrorCode::invalid_argument, "RANK is set, WORLD_SIZE is not"); }
TEST(Launch, NoNumber) {
  expect_refused({{"RANK", "one"}, {"WORLD_SIZE", "2"}}, ErrorCode::invalid_argument, "RANK is 'one', expected a number");
}
TEST(Launch, NoPort) {
  expect_refused({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "http"}}, ErrorCode::invalid_argument, "MASTER_PORT is 'http'");
}

TEST(Launch, SeveralHosts) {
  const std::string text = "more than one host";
  expect_refused({{"RANK", "2"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "0"}}, ErrorCode::unsupported, text);
  expect_refused({{"RANK", "0"}, {"WORLD_SIZE", "4"}, {"LOCAL_WORLD_SIZE", "2"}}, ErrorCode::unsupported, text);
  expect_refused({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}},
                 ErrorCode::unsupported, text);
  expect_refused({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_NNODES", "2"}}, ErrorCode::unsupported, text);
  expect_refused({{"PMI_RANK", "0"}, {"PMI_SIZE", "4"}, {"MPI_LOCALNRANKS", "2"}}, ErrorCode::unsupported, text);
}

TEST(Launch, JoinsFromTheEnvironment) {
  const Environment environment({{"RANK", "0"}, {"WORLD_SIZE", "1"}});
  const auto group = Group::from_env();
  EXPECT_EQ(group->rank(), 0);
  EXPECT_EQ(group->size(), 1);
}

}  // namespace
}  // namespace tandem
