#include "api/build/measure.h"

#include <algorithm>
#include <fstream>
#include <random>
#include <thread>

#include "comm/gpu_group.h"
#include "comm/ranks.h"
#include "core/check.h"
#include "core/numeric.h"
#include "core/stored_bytes.h"
#include "core/tensor.h"
#include "device/auxiliary_streams.h"
#include "ops/attention/operands.h"
#include "ops/kernel.h"

namespace tandem {
namespace {

constexpr std::size_t kLargest = std::size_t{1} << 30;      // bytes of operands and results
constexpr int kRuns = 7;                                    // the same on all ranks, since a collective takes all of them
constexpr std::int64_t kWholeLength = 1 << 30;              // more than any sequence: what is past the extent is cut off
constexpr std::int64_t kLongRun = 50'000'000;               // nanoseconds from which on one run is enough
constexpr int kCallsOnGpu = 10;                             // before they are recorded: hide what starting one costs
constexpr std::size_t kMostCalls = 20;                      // in a recording
constexpr std::int64_t kRunOnGpu = 2'000'000;               // nanoseconds that a run of several calls takes about
constexpr std::size_t kColdBytes = std::size_t{256} << 20;  // of operands in turn, so that none is found in the cache of a GPU

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
    for (std::int64_t i = 1; i < call.operand(1).dims.back().constant(); ++i)
      least = std::min(least, extent(0, first + static_cast<std::size_t>(i)));
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

std::size_t size_of(const OpCall& call) {
  std::size_t total = 0;
  const auto add = [&](const Type& type) { total += stored_bytes(type.dtype, element_count(extents(type))); };
  for (const auto& operand : call.operands)
    if (operand) add(*operand);
  for (const Type& result : call.results) add(result);
  return total;
}

// A candidate with its operands, once per algorithm of its library.
class TrialRun {
 public:
  TrialRun(const Trial& trial, int threads, Group* group)
      : trial_(trial),
        device_(open_device(trial.kernel.device, group ? group->rank() : 0)),
        on_device_(*device_),
        stream_(device_->make_stream(threads)),
        auxiliary_(*device_, trial.kernel.auxiliary_streams),
        alone_(!group) {
    const std::size_t sets = device_->is_host() || group
                                 ? 1
                                 : std::clamp<std::size_t>(kColdBytes / std::max<std::size_t>(1, size_of(trial.call)), 1, kMostCalls);
    place_operands(static_cast<unsigned>(group ? group->rank() : 0), sets);
    stream_->wait(Deadline::after(kStepDeadline));
    if (group && !device_->is_host()) gpu_group_ = make_gpu_group(*group, *device_, {}, nullptr);  // as contexts do
    Group* used = gpu_group_ ? gpu_group_.get() : group;
    const std::size_t count = trial.call.operands.size();
    for (std::size_t set = 0; set < sets && trial.kernel.pack; ++set) {
      packed_.push_back(trial.kernel.pack(trial.call, std::span<const std::byte* const>(weights_).subspan(set * count, count)));
      if (!packed_.back()) break;
    }
    const auto args = [&](std::size_t set) {
      return PrepareArgs{trial.call,
                         std::span<const std::byte* const>(weights_).subspan(set * count, count),
                         packed_.empty() ? nullptr : packed_[set].get(),
                         threads,
                         used,
                         device_.get(),
                         {},
                         trial.tf32,
                         trial.exact};
    };
    std::vector<std::string> algorithms;
    if (trial.kernel.algorithms) algorithms = trial.kernel.algorithms(args(0));
    if (algorithms.empty()) algorithms.emplace_back();
    std::size_t workspace = 0;
    for (std::string& algorithm : algorithms) {
      variants_.push_back({std::move(algorithm)});
      for (std::size_t set = 0; set < std::max<std::size_t>(packed_.size(), 1); ++set) {
        PrepareArgs own = args(set);
        own.algorithm = variants_.back().algorithm;
        variants_.back().kernels.push_back(trial.kernel.prepare(own));
        workspace = std::max(workspace, variants_.back().kernels.back()->workspace_bytes());
      }
    }
    workspace_ = room(workspace);
  }

  // The median of several runs, of the algorithm whose median is least; they take turns, so that a clock that drifts favours none.
  Timing best() {
    warm_all();
    for (int i = 0; i < kRuns; ++i)
      for (Variant& variant : variants_)
        if (!variant.is_long || i == 0) variant.times.push_back(run(variant));
    Timing best;
    for (Variant& variant : variants_) {
      std::ranges::sort(variant.times);
      const double time = static_cast<double>(variant.times[variant.times.size() / 2]) / 1e3;
      if (best.microseconds == 0 || time < best.microseconds) best = {time, variant.algorithm};
    }
    return best;
  }

 private:
  struct Variant {
    std::string algorithm;
    std::vector<std::unique_ptr<PreparedKernel>> kernels = {};  // one, or one per set where each has packed its weights
    std::unique_ptr<Recording> recording = nullptr;             // of `calls` calls, as contexts run on GPUs
    std::size_t calls = 1;
    bool is_long = false;                  // one run is enough
    std::vector<std::int64_t> times = {};  // nanoseconds a call
  };

  // A library may propose what it then cannot run: that is left out where there is anything else.
  void warm_all() {
    for (auto variant = variants_.begin(); variant != variants_.end();) try {
        warm(*variant);
        ++variant;
      } catch (const Error& error) {
        if (error.code() == ErrorCode::interrupted || variants_.size() == 1) throw;
        variant = variants_.erase(variant);
      }
  }

  void warm(Variant& variant) {
    variant.calls = device_->is_host() ? 1 : kCallsOnGpu;
    const std::int64_t once = run(variant);
    variant.is_long = alone_ && once > kLongRun;
    if (device_->is_host() || !alone_ || variant.is_long) return;
    variant.calls = static_cast<std::size_t>(std::clamp<std::int64_t>(kRunOnGpu / once, 2, kMostCalls));
    variant.recording = device_->record(*stream_, [&] { call(variant); });
    run(variant);
  }

  void call(const Variant& variant) {
    const std::size_t count = trial_.call.operands.size();
    const std::uint64_t resident = resident_operands(trial_.kernel, trial_.call, trial_.weights);
    for (std::size_t i = 0; i < variant.calls; ++i) {
      const bool early = i > 0 && trial_.kernel.dependent && can_start_early(*device_);  // as after a step of a plan that lets it
      const auto operands = std::span<const std::byte* const>(operand_data_).subspan(i % sets_ * count, count);
      variant.kernels[i % variant.kernels.size()]->run({operands, result_data_, workspace_, *stream_, Deadline::after(kStepDeadline), early,
                                                        early ? resident : 0, nullptr, auxiliary_.streams()});
    }
  }

  std::int64_t run(const Variant& variant) {
    const std::int64_t begin = monotonic_ns();
    if (variant.recording) variant.recording->launch(*stream_);
    else call(variant);
    stream_->wait(Deadline::after(kStepDeadline));
    return std::max<std::int64_t>(1, (monotonic_ns() - begin) / static_cast<std::int64_t>(variant.calls));
  }

  void place_operands(unsigned seed, std::size_t sets) {
    for (std::size_t set = 0; set < sets; ++set)
      for (std::size_t i = 0; i < trial_.call.operands.size(); ++i) {
        if (!trial_.call.has_operand(i)) {
          operand_data_.push_back(nullptr);
        } else if (set == 0) {
          operand_data_.push_back(place(trial_operand(trial_.call, i, seed * 64 + static_cast<unsigned>(i))));
        } else {
          const Type& type = trial_.call.operand(i);
          const std::size_t size = stored_bytes(type.dtype, element_count(extents(type)));
          std::byte* to = room(size);
          device_->copy(to, operand_data_[i], size, *stream_);
          operand_data_.push_back(to);
        }
        weights_.push_back(trial_.weights[i] ? operand_data_.back() : nullptr);
      }
    sets_ = sets;
    for (const Type& type : trial_.call.results) result_data_.push_back(room(stored_bytes(type.dtype, element_count(extents(type)))));
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

  const Trial& trial_;
  std::shared_ptr<Device> device_;
  OnDevice on_device_;
  std::unique_ptr<Stream> stream_;
  AuxiliaryStreams auxiliary_;
  std::unique_ptr<GpuGroup> gpu_group_;
  bool alone_;
  std::vector<DeviceMemory> memory_;
  std::vector<const std::byte*> operand_data_, weights_;  // set by set
  std::vector<std::byte*> result_data_;
  std::size_t sets_ = 1;
  std::vector<std::unique_ptr<Packed>> packed_;  // of each set; empty or one null where nothing is packed
  std::vector<Variant> variants_;
  std::byte* workspace_ = nullptr;
};

Timing measure(const Trial& trial, int threads) {
  const std::size_t size = size_of(trial.call) * static_cast<std::size_t>(trial.ranks);
  if (size > kLargest) fail(ErrorCode::out_of_memory, "{} bytes of operands are too many to try", size);
  if (trial.ranks == 1) return TrialRun(trial, threads, nullptr).best();
  std::vector<double> times(static_cast<std::size_t>(trial.ranks), 0);
  run_ranks(trial.ranks, [&](Group& group) {
    TrialRun run(trial, threads, &group);
    times[static_cast<std::size_t>(group.rank())] = run.best().microseconds;
  });
  return {*std::ranges::max_element(times), {}};
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

std::string machine_name(const std::string& device, int threads) {
  return device == "cpu" ? machine_name(threads) : open_device(device, 0)->name();
}

int threads_per_rank(int asked, int ranks) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return asked > 0 ? asked : std::max(1, cores / ranks);
}

}  // namespace tandem
