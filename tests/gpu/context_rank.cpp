#include "gpu/context_rank.h"

#include <cuda_runtime.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "core/check.h"
#include "gpu/here.h"

namespace tandem::test {

using namespace std::chrono_literals;

Engine engine_of(const std::string& device, const std::string& mesh, std::int64_t rows) {
  BuildOptions options;
  options.device = device;
  options.mesh = mesh;
  options.timed = false;
  options.shapes["x"] = rows > 0 ? fmt::format("{}x32", rows) : "1x32:8x32:64x32";
  return build(testing::model_path("mlp_dynamo"), options);
}

ContextRank::ContextRank(Group& group, std::int64_t rows, double step_deadline_s)
    : ContextRank(std::shared_ptr<Group>(&group, [](Group*) {}), rows, step_deadline_s) {}

ContextRank::ContextRank(const std::shared_ptr<Group>& group, std::int64_t rows, double step_deadline_s)
    : ContextRank(engine_of("cuda", fmt::format("tp={}", group->size()), rows), group, {.step_deadline_s = step_deadline_s}) {}

ContextRank::ContextRank(const Engine& of, const std::shared_ptr<Group>& group, ContextOptions options)
    : engine(of), inputs(engine.random_inputs(1)) {
  options.rank = group->rank();
  options.threads = 1;
  context.emplace(engine, options);
  context->set_communicator(group);
  set_shape(inputs.begin()->second.shape);
  context->prepare();
}

void ContextRank::set_shape(const Shape& shape) {
  context->set_input_shape(0, shape);
  out.resize(static_cast<std::size_t>(element_count(context->output_shape(0))));
}

void ContextRank::run() {
  const void* const in[] = {inputs.begin()->second.data.get()};
  void* const to[] = {out.data()};
  std::fill(out.begin(), out.end(), -1.0f);
  context->run(in, to);
}

void ContextRank::run_rows(std::int64_t rows) {
  set_shape({rows, 32});
  values.assign(static_cast<std::size_t>(rows) * 32, 0.5f);
  const void* const in[] = {values.data()};
  void* const to[] = {out.data()};
  context->run(in, to);
}

bool ContextRank::has_notice(std::string_view words) const {
  return std::ranges::any_of(context->notices(), [&](const std::string& notice) { return notice.find(words) != std::string::npos; });
}

void check_calls(ContextRank& rank, std::int64_t rows) {
  const Array wanted = Model(engine_of("cpu", "", rows)).run(rank.inputs).begin()->second.at(0);
  const auto* values = reinterpret_cast<const float*>(wanted.data.get());
  for (int call = 0; call < 4; ++call) {
    rank.run();
    for (std::size_t i = 0; i < rank.out.size(); ++i)
      if (!(std::abs(rank.out[i] - values[i]) < 1e-4f))
        fail(ErrorCode::internal, "call {}: element {} is {}, not {}", call, i, rank.out[i], values[i]);
  }
}

ncclComm_t communicator(Group& group, int size) {
  const nccl::Api& api = nccl::api();
  ncclUniqueId id = {};
  if (group.rank() == 0) nccl::check(api.ncclGetUniqueId(&id), "making a name");
  const auto blobs = group.exchange(std::as_bytes(std::span(&id, 1)));
  std::memcpy(&id, blobs[0].data(), sizeof id);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  ncclComm_t comm = nullptr;
  if (group.rank() < size) nccl::check(api.ncclCommInitRankConfig(&comm, size, id, group.rank(), &config), "joining");
  return comm;
}

void check_refused(ErrorCode code, std::string_view words, const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    if (error.code() == code && std::string_view(error.what()).find(words) != std::string_view::npos) return;
    fail(ErrorCode::internal, "not refused for '{}' but: {}", words, error.what());
  }
  fail(ErrorCode::internal, "not refused for '{}'", words);
}

std::size_t free_bytes() {
  std::size_t free = 0, total = 0;
  check(cudaDeviceSynchronize() == cudaSuccess && cudaMemGetInfo(&free, &total) == cudaSuccess, "the GPU tells its memory");
  return free;
}

void check_gpu_is_well(std::size_t free_before) {
  // Asking for work that goes on leaves this one.
  if (const cudaError_t left = cudaGetLastError(); left != cudaSuccess && left != cudaErrorNotReady)
    fail(ErrorCode::internal, "an error of CUDA's is left: {}", cudaGetErrorString(left));
  void* memory = nullptr;
  check(cudaDeviceSynchronize() == cudaSuccess && cudaMalloc(&memory, 1 << 20) == cudaSuccess &&
            cudaMemset(memory, 1, 1 << 20) == cudaSuccess,
        "the GPU works on");
  check(cudaFree(memory) == cudaSuccess && cudaDeviceSynchronize() == cudaSuccess, "the GPU works on");
  const Deadline deadline = Deadline::after(10s);
  const auto is_back = [&] { return free_bytes() + (std::size_t{64} << 20) > free_before; };
  while (!is_back() && !deadline.expired()) std::this_thread::sleep_for(20ms);
  check(is_back(), fmt::format("{} MiB were free before, {} are after", free_before >> 20, free_bytes() >> 20));
}

std::vector<std::size_t> used_bytes() {
  int ends[2];
  check(pipe(ends) == 0, "pipe");
  const pid_t child = fork();
  if (child == 0) {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) _exit(1);
    for (int gpu = 0; gpu < count; ++gpu) {
      std::size_t free = 0, total = 0;
      if (cudaSetDevice(gpu) != cudaSuccess || cudaMemGetInfo(&free, &total) != cudaSuccess) _exit(1);
      const std::size_t used = total - free;
      if (write(ends[1], &used, sizeof used) != sizeof used) _exit(1);
    }
    _exit(0);
  }
  close(ends[1]);
  std::vector<std::size_t> all;
  for (std::size_t used = 0; read(ends[0], &used, sizeof used) == sizeof used;) all.push_back(used);
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return all;
}

}  // namespace tandem::test
