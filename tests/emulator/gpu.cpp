#include "emulator/gpu.h"

#include <algorithm>
#include <cstdlib>
#include <string>

namespace tandem::emulator {
namespace {

thread_local int chosen = 0;

std::vector<int> visible() {
  const char* wanted = std::getenv("TANDEM_EMULATED_GPUS");
  const int all = wanted ? std::atoi(wanted) : 4;
  std::vector<int> numbers;
  if (const char* list = std::getenv("CUDA_VISIBLE_DEVICES")) {
    for (std::string rest = list; !rest.empty();) {
      numbers.push_back(std::atoi(rest.c_str()));
      const std::size_t comma = rest.find(',');
      rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    }
    std::erase_if(numbers, [all](int number) { return number >= all; });
  } else {
    for (int i = 0; i < all; ++i) numbers.push_back(i);
  }
  return numbers;
}

const std::vector<int>& gpus() {
  static const std::vector<int> numbers = visible();
  return numbers;
}

}  // namespace

int gpu_count() { return static_cast<int>(gpus().size()); }
int number_of(int ordinal) { return gpus().at(static_cast<std::size_t>(ordinal)); }
int current_gpu() { return chosen; }
void choose_gpu(int ordinal) { chosen = ordinal; }

struct Gpu::Kernel {
  const Grid& grid;
  unsigned count, begun = 0, ended = 0;
};

// Never destroyed, as their threads wait for work until the process ends.
Gpu& Gpu::of(int ordinal) {
  static auto* all = new std::vector<Gpu>(static_cast<std::size_t>(gpu_count()));
  return all->at(static_cast<std::size_t>(ordinal));
}

void Gpu::run(const Grid& grid) {
  Kernel kernel{grid, grid.blocks.x * grid.blocks.y * grid.blocks.z};
  if (kernel.count == 0) return;
  std::unique_lock lock(mutex_);
  kernels_.push_back(&kernel);
  for (unsigned wanted = kernel.count; wanted > static_cast<unsigned>(idle_) && workers_.size() < kBlocksAtOnce; --wanted)
    workers_.emplace_back([this] { work(); });
  changed_.notify_all();
  changed_.wait(lock, [&] { return kernel.ended == kernel.count; });
}

void Gpu::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    changed_.wait(lock, [&] { return !kernels_.empty(); });
    --idle_;
    Kernel& kernel = *kernels_.front();
    const unsigned i = kernel.begun++;
    if (kernel.begun == kernel.count) kernels_.pop_front();
    const std::uint64_t seed = ++seed_;
    lock.unlock();
    const dim3 size = kernel.grid.blocks;
    Block(kernel.grid, {i % size.x, i / size.x % size.y, i / (size.x * size.y)}).run(seed);
    lock.lock();
    if (++kernel.ended == kernel.count) changed_.notify_all();
  }
}

void Gpu::await_all() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return tasks_ == 0; });
}

void Gpu::count(int tasks) {
  const std::lock_guard lock(mutex_);
  tasks_ += tasks;
  if (tasks_ == 0) changed_.notify_all();
}

void Moment::pass() {
  const std::lock_guard lock(mutex_);
  passed_ = true;
  changed_.notify_all();
}

void Moment::await() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return passed(); });
}

Queue::Queue(int gpu) : gpu_(gpu) {
  std::thread([gpu, state = state_] {
    choose_gpu(gpu);
    std::unique_lock lock(state->mutex);
    for (;;) {
      state->changed.wait(lock, [&] { return state->closed || !state->tasks.empty(); });
      if (state->tasks.empty()) return;
      const Task task = std::move(state->tasks.front());
      state->tasks.pop_front();
      lock.unlock();
      task();
      --state->left;
      Gpu::of(gpu).count(-1);
      lock.lock();
    }
  }).detach();
}

Queue::~Queue() {
  const std::lock_guard lock(state_->mutex);
  state_->closed = true;
  state_->changed.notify_all();
}

void Queue::add(Task task) {
  const std::lock_guard lock(state_->mutex);
  ++state_->left;
  Gpu::of(gpu_).count(1);
  state_->tasks.push_back(std::move(task));
  state_->changed.notify_all();
}

CUstream_st& stream_of(cudaStream_t stream) {
  if (stream && stream != cudaStreamLegacy && stream != cudaStreamPerThread) return *stream;
  static auto* defaults = new std::vector<std::unique_ptr<CUstream_st>>(static_cast<std::size_t>(gpu_count()));
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  auto& mine = defaults->at(static_cast<std::size_t>(chosen));
  if (!mine) mine = std::make_unique<CUstream_st>(chosen);
  return *mine;
}

void launch(cudaStream_t to, Grid grid) {
  CUstream_st& stream = stream_of(to);
  const unsigned threads = grid.threads.x * grid.threads.y * grid.threads.z;
  if (threads == 0 || threads > 1024 || grid.blocks.x * grid.blocks.y * grid.blocks.z == 0) {
    report(cudaErrorInvalidConfiguration);
    return;
  }
  stream.add([gpu = stream.queue.gpu(), grid = std::move(grid)] { Gpu::of(gpu).run(grid); });
}

}  // namespace tandem::emulator

void CUstream_st::add(tandem::emulator::Task task) {
  using tandem::emulator::Node;
  if (recorder()) recorded->nodes.push_back({Node::Kind::task, branch, std::move(task)});
  else queue.add(std::move(task));
}
