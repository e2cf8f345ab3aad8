#include "ops/conv/windows_cuda.h"

#include "device/cuda/runtime.h"
#include "ops/conv/pool.h"
#include "ops/conv/resize.h"
#include "ops/half_types_cpu.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

class Pool final : public PreparedKernel {
 public:
  explicit Pool(const pool::Problem& p) : empty_(p.images * p.channels * p.out_count() == 0) {
    shape_ = {.dtype = p.dtype, .max = p.max, .count_padding = p.count_padding, .images = p.images, .channels = p.channels};
    for (std::size_t d = 0; d < 3; ++d) {
      const window::Axis& axis = window::small(p.axes[d]);
      shape_.in[d] = static_cast<int>(axis.in);
      shape_.out[d] = static_cast<int>(axis.out);
      shape_.kernel[d] = static_cast<int>(axis.kernel);
      shape_.stride[d] = static_cast<int>(axis.stride);
      shape_.dilation[d] = static_cast<int>(axis.dilation);
      shape_.before[d] = static_cast<int>(axis.before);
      shape_.after[d] = static_cast<int>(axis.after);
    }
  }

  void run(const RunArgs& args) const override {
    if (empty_) return;
    cuda::launch_pool(shape_, args.operands[0], args.results[0], cuda::handle_of(args.stream));
    cuda::check_launch("pool");
  }

 private:
  cuda::PoolShape shape_{};
  bool empty_;
};

class GroupNorm final : public PreparedKernel {
 public:
  explicit GroupNorm(const OpCall& call) {
    const Shape shape = shape_of(call.operand(0));
    const std::int64_t image = element_count({shape.begin() + 2, shape.end()}), size = call.attributes.integer("group_size");
    window::small(image * size);
    shape_ = {.dtype = call.operand(0).dtype,
              .batch = window::small(shape[0]),
              .channels = window::small(shape[1]),
              .image = window::small(image),
              .size = window::small(size),
              .epsilon = static_cast<float>(call.attributes.real("epsilon"))};
    empty_ = element_count(shape) == 0;
  }

  void run(const RunArgs& args) const override {
    if (empty_) return;
    cuda::launch_group_norm(shape_, args.operands[0], args.operands[1], args.operands[2], args.results[0], cuda::handle_of(args.stream));
    cuda::check_launch("group norm");
  }

 private:
  cuda::GroupNormShape shape_{};
  bool empty_ = false;
};

class Resize final : public PreparedKernel {
 public:
  explicit Resize(const PrepareArgs& args) : empty_(element_count(shape_of(args.call.results.at(0))) == 0) {
    if (empty_) return;
    const resize::Problem p = resize::problem_of(args.call);
    shape_ = {.dtype = p.dtype, .rank = static_cast<int>(p.tables.size()), .outer = p.outer};
    std::size_t bytes = 0;
    for (const resize::Table& table : p.tables) bytes += table.rows.size() * (sizeof(int) + sizeof(float));
    tables_ = DeviceMemory(static_cast<cuda::CudaDevice*>(args.device)->shared_from_this(), bytes);
    std::byte* to = tables_.data();
    const auto put = [&](const auto* from, std::size_t count) {
      // Not cudaMemcpy(), which breaks what other threads record.
      cuda::check(cudaMemcpyAsync(to, from, count * sizeof(*from), cudaMemcpyHostToDevice, cudaStreamPerThread), "tables of a resize");
      cuda::finish(cudaStreamPerThread, "tables of a resize");
      return std::exchange(to, to + count * sizeof(*from));
    };
    for (std::size_t d = 0; d < p.tables.size(); ++d) {
      const resize::Table& table = p.tables[d];
      const std::vector<float> weights(table.weights.begin(), table.weights.end());
      const std::vector<int> rows(table.rows.begin(), table.rows.end());
      shape_.in[d] = window::small(table.in);
      shape_.out[d] = window::small(table.out);
      shape_.taps[d] = static_cast<int>(table.taps);
      shape_.rows[d] = reinterpret_cast<const int*>(put(rows.data(), rows.size()));
      shape_.weights[d] = reinterpret_cast<const float*>(put(weights.data(), weights.size()));
    }
  }

  void run(const RunArgs& args) const override {
    if (empty_) return;
    cuda::launch_resize(shape_, args.operands[0], args.results[0], cuda::handle_of(args.stream));
    cuda::check_launch("resize");
  }

 private:
  cuda::ResizeShape shape_{};
  DeviceMemory tables_;
  bool empty_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (!is_vector_float(call.operand(0).dtype)) return "it computes f32, f16 and bf16 only";
  return std::nullopt;
}

std::optional<std::string> refuse_resize(const OpCall& call) {
  const std::size_t resized = call.attributes.dims("sizes").size();
  if (resized == 0 || resized > cuda::kResizeRank) return "it resizes one to four dimensions";
  return refuse(call);
}

std::unique_ptr<PreparedKernel> prepare_pool(const PrepareArgs& args) { return std::make_unique<Pool>(pool::problem_of(args.call)); }
std::unique_ptr<PreparedKernel> prepare_norm(const PrepareArgs& args) { return std::make_unique<GroupNorm>(args.call); }
std::unique_ptr<PreparedKernel> prepare_resize(const PrepareArgs& args) { return std::make_unique<Resize>(args); }

}  // namespace

extern const KernelDef cuda_average_pool, cuda_group_norm, cuda_max_pool, cuda_resize;
const KernelDef cuda_average_pool = {
    .name = "cuda_average_pool", .op = "AveragePool", .refuse = refuse, .prepare = prepare_pool, .device = "cuda"};
const KernelDef cuda_group_norm = {
    .name = "cuda_group_norm", .op = "GroupNorm", .refuse = refuse, .prepare = prepare_norm, .in_place_operand = 0, .device = "cuda"};
const KernelDef cuda_max_pool = {.name = "cuda_max_pool", .op = "MaxPool", .refuse = refuse, .prepare = prepare_pool, .device = "cuda"};
const KernelDef cuda_resize = {.name = "cuda_resize", .op = "Resize", .refuse = refuse_resize, .prepare = prepare_resize, .device = "cuda"};

}  // namespace tandem::kernels
