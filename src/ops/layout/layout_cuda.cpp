// Kernels of GPUs for ops that are copies of strided views.
#include <algorithm>

#include "core/check.h"
#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/layout/copy_cuda.h"
#include "ops/layout/views.h"
#include "ops/shape_rules.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

std::optional<std::string> refuse(const OpCall& call) {
  if (bits(call.operand(0).dtype) < 8) return "its elements are parts of bytes";
  if (std::max(call.operand(0).rank(), call.results.at(0).rank()) > cuda::kCopyRank)
    return fmt::format("it has more than {} dimensions", cuda::kCopyRank);
  return std::nullopt;
}

class Strided final : public PreparedKernel {
 public:
  explicit Strided(cuda::StridedCopy copy) : copy_(std::move(copy)) {}
  void run(const RunArgs& args) const override { copy_.launch(args.operands[0], args.results[0], cuda::start_of(args)); }

 private:
  cuda::StridedCopy copy_;
};

template <OperandView (*kView)(const OpCall&)>
std::unique_ptr<PreparedKernel> prepare_view(const PrepareArgs& args) {
  const OperandView view = kView(args.call);
  return std::make_unique<Strided>(
      cuda::StridedCopy(bits(args.call.operand(0).dtype) / 8, shape_of(args.call.results.at(0)), view.strides, view.offset));
}

class Reshape final : public PreparedKernel {
 public:
  explicit Reshape(const OpCall& call) : size_(bytes(call.operand(0).dtype, element_count(shape_of(call.operand(0))))) {}
  void run(const RunArgs& args) const override {
    if (size_ == 0 || args.operands[0] == args.results[0]) return;
    cuda::check(cudaMemcpyAsync(args.results[0], args.operands[0], size_, cudaMemcpyDeviceToDevice, cuda::handle_of(args.stream)),
                "copying a reshaped tensor");
  }

 private:
  std::size_t size_;
};

// The rows that the operand has by a copy; zeros after them.
class ShardSlice final : public PreparedKernel {
 public:
  explicit ShardSlice(const OpCall& call) : ShardSlice(call.operand(0).dtype, shard_rows(call)) {}

  void run(const RunArgs& args) const override {
    const cudaStream_t stream = cuda::handle_of(args.stream);
    copy_.launch(args.operands[0], args.results[0], stream);
    std::byte* rest = args.results[0] + copied_;
    if (outer_ == 0 || copied_ == line_) return;
    cuda::check(outer_ == 1 ? cudaMemsetAsync(rest, 0, line_ - copied_, stream)
                            : cudaMemset2DAsync(rest, line_, 0, line_ - copied_, outer_, stream),
                "clearing rows past the end");
  }

 private:
  ShardSlice(DType dtype, const ShardRows& rows)
      : copy_(bits(dtype) / 8, {{rows.outer, rows.extent * rows.inner, rows.length * rows.inner}, {rows.copied * rows.inner, 1, 1}},
              rows.copied > 0 ? rows.begin * rows.inner : 0),
        outer_(static_cast<std::size_t>(rows.outer)),
        line_(bytes(dtype, rows.length * rows.inner)),
        copied_(bytes(dtype, rows.copied * rows.inner)) {}

  cuda::StridedCopy copy_;
  std::size_t outer_, line_, copied_;
};

template <typename K>
std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return std::make_unique<K>(args.call);
}

}  // namespace

extern const KernelDef cuda_expand, cuda_reshape, cuda_shard_slice, cuda_slice, cuda_transpose;
const KernelDef cuda_expand = {
    .name = "cuda_expand", .op = "Expand", .refuse = refuse, .prepare = prepare_view<expand_view>, .device = "cuda", .dependent = true};
const KernelDef cuda_reshape = {
    .name = "cuda_reshape", .op = "Reshape", .prepare = prepare<Reshape>, .in_place_operand = 0, .device = "cuda"};
const KernelDef cuda_shard_slice = {
    .name = "cuda_shard_slice", .op = "ShardSlice", .refuse = refuse, .prepare = prepare<ShardSlice>, .device = "cuda"};
const KernelDef cuda_slice = {
    .name = "cuda_slice", .op = "Slice", .refuse = refuse, .prepare = prepare_view<slice_view>, .device = "cuda", .dependent = true};
const KernelDef cuda_transpose = {.name = "cuda_transpose",
                                  .op = "Transpose",
                                  .refuse = refuse,
                                  .prepare = prepare_view<transpose_view>,
                                  .device = "cuda",
                                  .dependent = true};

}  // namespace tandem::kernels
