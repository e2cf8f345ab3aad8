#include "api/build/measure.h"

#include <algorithm>
#include <fstream>
#include <random>

#include "comm/gpu_group.h"
#include "comm/ranks.h"
#include "core/check.h"
#include "core/numeric.h"
#include "core/tensor.h"
#include "ops/attention/operands.h"
#include "ops/kernel.h"

namespace tandem {
namespace {

constexpr std::size_t kLargest = std::size_t{1} << 30;  // bytes of operands and results
constexpr int kRuns = 7;                                // the same on all ranks, since a collective takes all of them
constexpr std::int64_t kWholeLength = 1 << 30;          // more than any sequence: what is past the extent is cut off
constexpr std::int64_t kLongRun = 50'000'000;           // nanoseconds from which on one run is enough
constexpr int kCallsOnGpu = 10;                         // hide what starting one costs

Shape extents(const Type& type) {
  Shape shape;
  for (const Dim& dim : type.dims) shape.push_back(dim.constant());
  return shape;
}

// From where on integers of this operand are not valid.
std::int64_t bound_of(const OpCall& call, std::size_t operand) {
  const auto extent = [&](std::size_t of, std::size_t dim) { return call.operand(of).dims.at(dim).constant(); };
  const std::string_view op = call.op->name;
  if (op == "Gather" && operand == 1) {
    const std::int64_t axis = call.attributes.integer("axis");
    return extent(0, static_cast<std::size_t>(axis < 0 ? axis + call.operand(0).rank() : axis));
  }
  if (op == "GatherND" && operand == 1) {
    const auto first = static_cast<std::size_t>(call.attributes.integer("batch_dims"));
    std::int64_t least = extent(0, first);
    for (std::int64_t i = 1; i < call.operand(1).dims.back().constant(); ++i) least = std::min(least, extent(0, first + static_cast<std::size_t>(i)));
    return least;
  }
  return 1;
}

Tensor sample_integers(const OpCall& call, std::size_t operand, std::mt19937& random) {
  const Type& type = call.operand(operand);
  Tensor tensor(type.dtype, extents(type));
  const bool attention = call.op->name == "Attention" || call.op->name == "FlatAttention";
  const bool lengths = attention && (operand == attention::kQueryLengths || operand == attention::kKeyLengths);
  const std::int64_t bound = bound_of(call, operand);
  for (std::int64_t i = 0; i < tensor.count(); ++i) {
    const std::int64_t value = type.dtype == DType::boolean ? 1
                               : lengths                    ? kWholeLength
                               : bound > 0                  ? static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(bound))
                                                            : 0;
    store_element(type.dtype, tensor.mutable_data(), i, static_cast<double>(value));
  }
  return tensor;
}

Tensor sample_floats(const Type& type, std::mt19937& random) {
  Tensor tensor(type.dtype, extents(type));
  // A block of random numbers, repeated: what is timed must not be zeros, and making it must not take longer than the run.
  constexpr std::int64_t kBlock = 4096;
  std::uniform_real_distribution<double> real(-1, 1);
  const std::int64_t first = std::min(kBlock, tensor.count());
  for (std::int64_t i = 0; i < first; ++i) store_element(type.dtype, tensor.mutable_data(), i, real(random));
  const std::size_t size = first > 0 ? bytes(type.dtype, first) : 0;
  for (std::size_t at = size; size > 0 && at < tensor.size_bytes(); at += size)
    std::copy_n(tensor.data(), std::min(size, tensor.size_bytes() - at), tensor.mutable_data() + at);
  return tensor;
}

class TrialRun {
 public:
  TrialRun(const Trial& trial, int threads, Group* group)
      : device_(open_device(trial.kernel.device, group ? group->rank() : 0)), on_device_(*device_), stream_(device_->make_stream(threads)), alone_(!group) {
    const auto seed = static_cast<unsigned>(group ? group->rank() : 0);
    std::vector<const std::byte*> weights;
    for (std::size_t i = 0; i < trial.call.operands.size(); ++i) {
      operand_data_.push_back(trial.call.has_operand(i) ? place(trial_operand(trial.call, i, seed * 64 + static_cast<unsigned>(i))) : nullptr);
      weights.push_back(trial.weights[i] ? operand_data_.back() : nullptr);
    }
    for (const Type& type : trial.call.results) result_data_.push_back(room(bytes(type.dtype, element_count(extents(type)))));
    if (trial.kernel.pack) packed_ = trial.kernel.pack(trial.call, weights);
    if (group && !device_->is_host()) gpu_group_ = make_gpu_group(*group, *device_, {}, nullptr);  // as contexts do
    kernel_ = trial.kernel.prepare({trial.call, weights, packed_.get(), threads, gpu_group_ ? gpu_group_.get() : group, device_.get()});
    workspace_ = room(kernel_->workspace_bytes());
  }

  double median_microseconds() {
    const std::int64_t warm = run();
    std::vector<std::int64_t> times;
    for (int i = 0; i < kRuns && !(alone_ && warm > kLongRun && i > 0); ++i) times.push_back(run());
    std::ranges::sort(times);
    return static_cast<double>(times[times.size() / 2]) / 1e3;
  }

 private:
  std::int64_t run() {
    const int calls = device_->is_host() ? 1 : kCallsOnGpu;
    const std::int64_t begin = monotonic_ns();
    for (int i = 0; i < calls; ++i) kernel_->run({operand_data_, result_data_, workspace_, *stream_, Deadline::after(kStepDeadline)});
    stream_->wait(Deadline::after(kStepDeadline));
    return std::max<std::int64_t>(1, (monotonic_ns() - begin) / calls);
  }

  std::byte* room(std::size_t size) {
    memory_.emplace_back(device_, std::max<std::size_t>(size, 1));
    return memory_.back().data();
  }

  const std::byte* place(const Tensor& tensor) {
    std::byte* to = room(tensor.size_bytes());
    device_->copy(to, tensor.data(), tensor.size_bytes(), *stream_);
    return to;
  }

  std::shared_ptr<Device> device_;
  OnDevice on_device_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<GpuGroup> gpu_group_;
  bool alone_;
  std::vector<DeviceMemory> memory_;
  std::vector<const std::byte*> operand_data_;
  std::vector<std::byte*> result_data_;
  std::unique_ptr<Packed> packed_;
  std::unique_ptr<PreparedKernel> kernel_;
  std::byte* workspace_ = nullptr;
};

std::size_t size_of(const OpCall& call) {
  std::size_t total = 0;
  const auto add = [&](const Type& type) { total += bytes(type.dtype, element_count(extents(type))); };
  for (const auto& operand : call.operands)
    if (operand) add(*operand);
  for (const Type& result : call.results) add(result);
  return total;
}

double measure(const Trial& trial, int threads) {
  const std::size_t size = size_of(trial.call) * static_cast<std::size_t>(trial.ranks);
  if (size > kLargest) fail(ErrorCode::out_of_memory, "{} bytes of operands are too many to try", size);
  if (trial.ranks == 1) return TrialRun(trial, threads, nullptr).median_microseconds();
  std::vector<double> times(static_cast<std::size_t>(trial.ranks), 0);
  run_ranks(trial.ranks, [&](Group& group) {
    TrialRun run(trial, threads, &group);
    times[static_cast<std::size_t>(group.rank())] = run.median_microseconds();
  });
  return *std::ranges::max_element(times);
}

}  // namespace

Tensor trial_operand(const OpCall& call, std::size_t operand, unsigned seed) {
  std::mt19937 random(seed);
  const Type& type = call.operand(operand);
  return is_float(type.dtype) ? sample_floats(type, random) : sample_integers(call, operand, random);
}

Measure make_measure(const std::string& device, int threads) {
  open_device(device, 0);  // throws where there is none
  return [threads](const Trial& trial) { return measure(trial, threads); };
}

std::string machine_name(int threads) {
  std::string cpu = "unknown cpu", line;
  for (std::ifstream file("/proc/cpuinfo"); std::getline(file, line);)
    if (line.starts_with("model name") && line.find(':') + 2 < line.size()) {
      cpu = line.substr(line.find(':') + 2);
      break;
    }
  return fmt::format("[{}] threads={}", cpu, threads);
}

}  // namespace tandem
