// GPUs played by threads of the CPU: blocks that run at once, streams, events and graphs.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "emulator/block.h"

namespace tandem::emulator {

// TANDEM_EMULATED_GPUS, else 4; of them those that CUDA_VISIBLE_DEVICES names.
int gpu_count();
// The number of a GPU among all of the machine.
int number_of(int ordinal);
// The calling thread's.
int current_gpu();
void choose_gpu(int ordinal);

// Each multiprocessor runs two blocks at once: kernels that need more wait until others end.
inline constexpr int kMultiprocessors = 32, kBlocksAtOnce = 2 * kMultiprocessors;

class Gpu {
 public:
  static Gpu& of(int ordinal);
  // Runs all blocks and returns when they have ended. Blocks of earlier kernels go first.
  void run(const Grid& grid);
  // Until its streams have done what they hold now or get meanwhile.
  void await_all();
  void count(int tasks);  // that a stream has got, or done

 private:
  struct Kernel;
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Kernel*> kernels_;       // with blocks that have not begun
  std::vector<std::thread> workers_;  // as many as were needed at once
  int idle_ = 0;
  std::uint64_t seed_ = 0;
  int tasks_ = 0;
};

using Task = std::function<void()>;

// A moment in the work of a stream.
class Moment {
 public:
  void pass();
  void await();
  bool passed() const { return passed_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> passed_{false};
};

// Does its tasks one after the other; goes when it is closed and has done them.
class Queue {
 public:
  explicit Queue(int gpu);
  ~Queue();  // closes it, waits for nothing
  void add(Task task);
  bool done() const { return state_->left == 0; }
  int gpu() const { return gpu_; }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Task> tasks;
    std::atomic<int> left{0};
    bool closed = false;
  };
  int gpu_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// A recorded task of one of the streams that a recording forked into; or that another stream's moment is marked or awaited.
struct Node {
  enum class Kind { task, mark, await } kind;
  int branch;
  Task task;
  int moment = -1;
};
struct Recorded {
  std::vector<Node> nodes;
  int branches = 1, moments = 0;
  bool ended = false;
};

}  // namespace tandem::emulator

// CUDA's own names for what its handles point to.
struct CUstream_st {
  explicit CUstream_st(int gpu) : queue(gpu) {}
  void add(tandem::emulator::Task task);  // or has it recorded
  // What it is recorded into; null: nothing.
  tandem::emulator::Recorded* recorder() const { return recorded && !recorded->ended ? recorded.get() : nullptr; }

  tandem::emulator::Queue queue;
  std::shared_ptr<tandem::emulator::Recorded> recorded;  // or was
  int branch = 0;
};

struct CUevent_st {
  std::shared_ptr<tandem::emulator::Moment> last;      // that it was recorded for; null: none
  std::weak_ptr<tandem::emulator::Recorded> recorded;  // in which it was marked last
  int moment = -1;
};

namespace tandem::emulator {

// For start_kernel(): gives a kernel to a stream.
void launch(cudaStream_t stream, Grid grid);
// The stream, or the GPU's default stream for null.
CUstream_st& stream_of(cudaStream_t stream);
// Keeps the error for cudaGetLastError().
cudaError_t report(cudaError_t status);

}  // namespace tandem::emulator
