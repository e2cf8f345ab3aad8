// Every collective op on GPUs: one call of a GpuGroup, packed where the group wants blocks one after the other; through the host where it
// does not take the call, or where there is none. A kernel per row of tandem/collective.def.
#include "comm/gpu_group.h"
#include "device/cuda/runtime.h"
#include "ops/collective/collective_cpu.h"
#include "ops/layout/copy_cuda.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {

extern const KernelDef cuda_host;

namespace {

// Copies between a tensor and its `size` blocks along an axis, each dense, one after the other. Null where they lie so by themselves.
struct Blocks {
  std::int64_t outer = 1, width = 1;  // of one block: lines, and elements that lie side by side

  Blocks(const Shape& whole, int axis, int size) {
    for (int d = 0; d < axis; ++d) outer *= whole[static_cast<std::size_t>(d)];
    for (std::size_t d = static_cast<std::size_t>(axis); d < whole.size(); ++d) width *= whole[d];
    width /= size;
  }
  std::optional<cuda::StridedCopy> pack(int element, int size) const {
    if (outer == 1) return std::nullopt;
    return cuda::StridedCopy(element, {{size, width, outer * width}, {outer, size * width, width}, {width, 1, 1}});
  }
  std::optional<cuda::StridedCopy> unpack(int element, int size) const {
    if (outer == 1) return std::nullopt;
    return cuda::StridedCopy(element, {{outer, width, size * width}, {size, outer * width, width}, {width, 1, 1}});
  }
};

class OnGpus final : public PreparedKernel {
 public:
  // `group` null: there is one rank.
  OnGpus(GpuGroup* group, const CollectiveOp& op) : group_(group), dims_(op.dims), call_(op.call) {
    call_.dims = dims_;
    bytes_ = bytes(call_.dtype, element_count(dims_));
    const std::size_t whole = bytes(call_.dtype, element_count(op.whole));
    const int element = bits(call_.dtype) / 8;
    if (group_ && group_->refusal(call_)) plan_blocks(op, element);
    if (op.whole != op.kept) trim_.emplace(element, op.kept, row_major_strides(op.whole));
    if (pack_) given_ = room(bytes_);
    if (unpack_) taken_ = room(whole);
    if (trim_) untrimmed_ = room(whole);
  }

  // Whether the group takes it, as it is or packed.
  bool possible() const { return !group_ || !group_->refusal(call_); }

  std::size_t workspace_bytes() const override { return workspace_; }

  void run(const RunArgs& args) const override {
    const cudaStream_t stream = cuda::handle_of(args.stream);
    const std::byte* in = args.operands[0];
    if (pack_) {
      pack_->launch(in, args.workspace + given_, stream);
      cuda::check_launch("packing blocks");
      in = args.workspace + given_;
    }
    std::byte* whole = trim_ ? args.workspace + untrimmed_ : args.results[0];
    std::byte* out = unpack_ ? args.workspace + taken_ : whole;
    if (group_) {
      CollectiveCall call = call_;
      call.stream = stream;
      call.in = in;
      call.out = out;
      call.deadline = args.deadline;
      group_->run(call);
    } else if (in != out && bytes_ > 0) {
      cuda::check(cudaMemcpyAsync(out, in, bytes_, cudaMemcpyDeviceToDevice, stream), "copying");
    }
    if (unpack_) unpack_->launch(out, whole, stream);
    if (trim_) trim_->launch(whole, args.results[0], stream);
    cuda::check_launch("unpacking blocks");
  }

 private:
  std::size_t room(std::size_t size) {
    const std::size_t at = workspace_;
    workspace_ += aligned_size(std::max<std::size_t>(size, 1));
    return at;
  }

  // The same with blocks that lie one after the other.
  void plan_blocks(const CollectiveOp& op, int element) {
    const std::int64_t elements = element_count(op.dims);
    const bool exchanges = call_.kind == Collective::all_to_all;
    const CollectiveExtent extent = info(call_.kind).extent;
    if (!exchanges && extent == CollectiveExtent::same) return;
    if (exchanges || extent == CollectiveExtent::over)
      pack_ = Blocks(op.dims, exchanges ? call_.split_axis : call_.axis, op.size).pack(element, op.size);
    if (exchanges || extent == CollectiveExtent::times)
      unpack_ = Blocks(op.whole, exchanges ? call_.concat_axis : call_.axis, op.size).unpack(element, op.size);
    dims_ = {elements};
    call_.dims = dims_;
    call_.axis = call_.split_axis = call_.concat_axis = 0;
  }

  GpuGroup* group_;
  Shape dims_;
  CollectiveCall call_;
  std::size_t bytes_ = 0, workspace_ = 0;
  std::size_t given_ = 0, taken_ = 0, untrimmed_ = 0;  // in the workspace
  std::optional<cuda::StridedCopy> pack_, unpack_, trim_;
};

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  const CollectiveOp op = collective_op(args);
  auto* group = dynamic_cast<GpuGroup*>(args.group);
  const bool alone = !args.group && op.size == 1;
  if (group || alone)
    if (auto kernel = std::make_unique<OnGpus>(group, op); kernel->possible()) return kernel;
  return cuda_host.prepare(args);
}

std::optional<std::string> refuse(const OpCall& call) {
  if (bits(call.operand(0).dtype) < 8) return "its elements are less than a byte";
  return std::nullopt;
}

constexpr KernelDef define(Collective kind, CollectiveExtent extent, bool reduces, std::string_view name, std::string_view op) {
  return {
      .name = name,
      .op = op,
      .refuse = refuse,
      .prepare = prepare,
      .in_place_operand = extent == CollectiveExtent::same && kind != Collective::all_to_all && kind != Collective::shift ? 0 : -1,
      .weaker = reduces ? "NCCL rounds sums of 16-bit floats after each addition and drops NaN in max and min" : "",
      .device = "cuda",
  };
}

}  // namespace

#define TANDEM_COLLECTIVE(name, op, reduces, rooted, extent) \
  extern const KernelDef cuda_group_##name;                  \
  const KernelDef cuda_group_##name = define(Collective::name, CollectiveExtent::extent, reduces, "cuda_group_" #name, #op);
#include "tandem/collective.def"

}  // namespace tandem::kernels
