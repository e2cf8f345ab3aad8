// Conv by cuDNN. Its kernels of 16-bit floats want the channels last and in eights, so x is brought into that layout and the sums out of
// it, with bias, residual and activation on the way; the weight is brought there once, at load. Where a call has its channels last already,
// nothing is moved and cuDNN finishes the sums itself. What cuDNN does not run, our own kernel does.
#include "ops/conv/cudnn_conv_cuda.h"

#include <algorithm>
#include <optional>

#include "core/check.h"
#include "core/numeric.h"
#include "device/cuda/library.h"
#include "device/cuda/runtime.h"
#include "ops/conv/conv_cuda.h"
#include "ops/conv/problem.h"
#include "ops/kernel.h"
#include "ops/layout/copy_cuda.h"
#include "ops/matmul/problem_cpu.h"
#include "ops/packed_cuda.h"

namespace tandem::kernels {

extern const KernelDef cuda_conv;

namespace {

using namespace conv;

constexpr std::size_t kMostPlans = 6;          // to choose from where times are taken
constexpr std::size_t kMostApart = 2;          // of them, where cuDNN could finish the sums
constexpr std::string_view kApart = "apart ";  // before the name of a plan: the sums are finished by a kernel of ours

bool goes_channels_last(DType dtype) { return dtype != DType::f32; }

// Channels as they are stored channels last: padding counts as zeros.
std::int64_t stored(std::int64_t channels, const Problem& p) {
  return p.groups == 1 ? round_up(channels, window::kChannelMultiple) : channels;
}

// [rows, channels, positions] to [rows, positions, stored channels].
struct ToChannelsLast {
  std::int64_t rows, channels, positions, to;
  cuda::StridedCopy copy;

  ToChannelsLast(std::int64_t rows, std::int64_t channels, std::int64_t positions, std::int64_t to)
      : rows(rows),
        channels(channels),
        positions(positions),
        to(to),
        copy(2, {{rows, channels * positions, positions * to}, {channels, positions, 1}, {positions, 1, to}}) {}
  std::size_t bytes() const { return static_cast<std::size_t>(rows * positions * to) * 2; }
  void launch(const void* from, void* into, std::size_t whole, cudaStream_t stream) const {
    if (whole != static_cast<std::size_t>(rows * positions * channels) * 2)
      cuda::check(cudaMemsetAsync(into, 0, whole, stream), "clearing padding");
    copy.launch(from, into, stream);
    cuda::check_launch("channels last");
  }
};

ToChannelsLast weight_copy(const Problem& p) { return {p.groups * p.group_out, p.group_in, p.taps(), stored(p.group_in, p)}; }
std::size_t weight_bytes(const Problem& p) {
  return static_cast<std::size_t>(stored(p.groups * p.group_out, p) * p.taps() * stored(p.group_in, p)) * 2;
}

cuda::CudnnConvShape shape_of(const Problem& p, bool tf32 = false) {
  const bool last = goes_channels_last(p.dtype);
  const auto channels = [&](std::int64_t count) { return last ? stored(count, p) : count; };
  cuda::CudnnConvShape s{.dtype = p.dtype, .tf32 = tf32 && p.dtype == DType::f32, .channels_last = last};
  s.x = {p.batch, channels(p.groups * p.group_in)};
  s.w = {channels(p.groups * p.group_out), channels(p.group_in)};
  s.y = {p.batch, channels(p.groups * p.group_out)};
  const bool flat = p.axes[0].in == 1 && p.axes[0].out == 1 && p.axes[0].kernel == 1;
  for (std::size_t d = flat ? 1 : 0; d < 3; ++d) {
    const window::Axis& axis = p.axes[d];
    s.x.push_back(axis.in);
    s.w.push_back(axis.kernel);
    s.y.push_back(axis.out);
    s.strides.push_back(axis.stride);
    s.dilations.push_back(axis.dilation);
    s.before.push_back(axis.before);
    s.after.push_back(axis.after);
  }
  return s;
}

int ordinal_of(const PrepareArgs& args) { return static_cast<const cuda::CudaDevice&>(*args.device).ordinal(); }

class Cudnn final : public PreparedKernel {
 public:
  // `own`: our kernel for the same call, for memory that does not begin at 16 bytes.
  Cudnn(const PrepareArgs& args, const Problem& p, std::unique_ptr<PreparedKernel> own)
      : p_(p),
        conv_(shape_of(p, args.tf32), ordinal_of(args), args.algorithm),
        own_(std::move(own)),
        activation_(activation_of(args.call.attributes.text("activation"))),
        biased_(args.call.has_operand(kBias)),
        added_(args.call.has_operand(kResidual)),
        packed_(static_cast<const PackedBlock*>(args.packed)) {
    if (goes_channels_last(p_.dtype)) lay_out();
    conv_at_ = place(conv_.workspace_bytes());
  }

  std::size_t workspace_bytes() const override { return std::max(bytes_, own_->workspace_bytes()); }

  void run(const RunArgs& args) const override {
    const cudaStream_t stream = cuda::handle_of(args.stream);
    const cuda::ConvFinish finish = {biased_ ? args.operands[kBias] : nullptr, added_ ? args.operands[kResidual] : nullptr, activation_};
    const std::int64_t channels = p_.groups * p_.group_out;
    if (!goes_channels_last(p_.dtype)) {
      if (!cuda::all_aligned_16({args.operands[kX], args.operands[kWeight], args.results[0]})) return own_->run(args);
      conv_.run(args.operands[kX], args.operands[kWeight], nullptr, nullptr, args.results[0], args.workspace + conv_at_, stream);
      if (!finish.bias && !finish.residual && activation_ == Activation::none) return;
      cuda::launch_conv_finish(p_.dtype, finish, args.results[0], p_.batch, channels, p_.out_count(), stream);
      return cuda::check_launch("conv");
    }
    x_copy_->launch(args.operands[kX], args.workspace + x_at_, x_copy_->bytes(), stream);
    const void* weight = packed_ ? packed_->in(args) : args.workspace + w_at_;
    if (!packed_) w_copy_->launch(args.operands[kWeight], args.workspace + w_at_, weight_bytes(p_), stream);
    conv_.run(args.workspace + x_at_, weight, nullptr, nullptr, args.workspace + y_at_, args.workspace + conv_at_, stream);
    cuda::launch_conv_finish_channels_last(p_.dtype, finish, args.workspace + y_at_, stored(channels, p_), args.results[0], p_.batch,
                                           channels, p_.out_count(), stream);
    cuda::check_launch("conv");
  }

 private:
  std::size_t place(std::size_t bytes) {
    const std::size_t here = bytes_;
    bytes_ += (bytes + 255) / 256 * 256;
    return here;
  }

  void lay_out() {
    const std::int64_t in = p_.groups * p_.group_in;
    x_copy_.emplace(p_.batch, in, p_.in_count(), stored(in, p_));
    x_at_ = place(x_copy_->bytes());
    y_at_ = place(static_cast<std::size_t>(p_.batch * p_.out_count() * stored(p_.groups * p_.group_out, p_)) * 2);
    if (packed_) return;
    w_copy_.emplace(weight_copy(p_));
    w_at_ = place(weight_bytes(p_));
  }

  Problem p_;
  cuda::CudnnConv conv_;
  std::unique_ptr<PreparedKernel> own_;
  Activation activation_;
  bool biased_, added_;
  const PackedBlock* packed_;
  std::optional<ToChannelsLast> x_copy_, w_copy_;
  std::size_t bytes_ = 0, x_at_ = 0, w_at_ = 0, y_at_ = 0, conv_at_ = 0;
};

// What is left to do with the sums of a call.
struct Finish {
  explicit Finish(const OpCall& call)
      : activation(activation_of(call.attributes.text("activation"))),
        biased(call.has_operand(kBias)),
        added(call.has_operand(kResidual)) {}
  bool is_nothing() const { return !biased && !added && activation == Activation::none; }
  // Whether cuDNN can do it.
  bool is_plain() const { return activation == Activation::none || activation == Activation::relu; }
  cuda::CudnnConvShape within(cuda::CudnnConvShape shape) const {
    shape.biased = biased, shape.added = added, shape.relu = activation == Activation::relu;
    return shape;
  }

  Activation activation;
  bool biased, added;
};

// A call whose channels are last, and in eights.
class CudnnLast final : public PreparedKernel {
 public:
  // `within`: cuDNN finishes the sums; else we do, in place.
  CudnnLast(const PrepareArgs& args, const Problem& p, bool within, std::string_view plan)
      : own_(cuda_conv.prepare(args)),
        within_(within),
        finish_(args.call),
        dtype_(p.dtype),
        positions_(p.batch * p.out_count()),
        channels_(p.groups * p.group_out),
        conv_(within ? finish_.within(shape_of(p)) : shape_of(p), ordinal_of(args), plan) {}

  std::size_t workspace_bytes() const override { return std::max(conv_.workspace_bytes(), own_->workspace_bytes()); }

  void run(const RunArgs& args) const override {
    const cudaStream_t stream = cuda::handle_of(args.stream);
    const std::byte *x = args.operands[kX], *w = args.operands[kWeight];
    const std::byte* bias = finish_.biased ? args.operands[kBias] : nullptr;
    const std::byte* residual = finish_.added ? args.operands[kResidual] : nullptr;
    if (!cuda::all_aligned_16({x, w, bias, residual, args.results[0]})) return own_->run(args);
    if (within_) return conv_.run(x, w, bias, residual, args.results[0], args.workspace, stream);
    conv_.run(x, w, nullptr, nullptr, args.results[0], args.workspace, stream);
    if (finish_.is_nothing()) return;
    cuda::launch_conv_finish_last(dtype_, {bias, residual, finish_.activation}, args.results[0], positions_, channels_, stream);
    cuda::check_launch("conv");
  }

 private:
  std::unique_ptr<PreparedKernel> own_;
  bool within_;
  Finish finish_;
  DType dtype_;
  std::int64_t positions_, channels_;
  cuda::CudnnConv conv_;
};

// Whether cuDNN is asked at all.
bool suits(const Problem& p) {
  if (p.is_empty() || p.group_in * p.in_count() == 0) return false;
  if (!p.channels_last)
    // In bf16, cuDNN 9.14 gave wrong numbers for 32 groups of one channel in and two out.
    return p.groups == 1 || !goes_channels_last(p.dtype);
  const auto is_in_eights = [](std::int64_t channels) { return channels % window::kChannelMultiple == 0; };
  return goes_channels_last(p.dtype) && p.groups == 1 && is_in_eights(p.group_in) && is_in_eights(p.group_out);
}

std::unique_ptr<PreparedKernel> prepare_last(const PrepareArgs& args, const Problem& p) {
  const bool apart = args.algorithm.starts_with(kApart);
  const std::string_view plan = apart ? args.algorithm.substr(kApart.size()) : args.algorithm;
  if (!apart && Finish(args.call).is_plain()) try {
      return std::make_unique<CudnnLast>(args, p, true, plan);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::unsupported) throw;
    }
  return std::make_unique<CudnnLast>(args, p, false, plan);
}

std::vector<std::string> plans_last(const Problem& p, const Finish& finish, int ordinal) {
  std::vector<std::string> words;
  if (finish.is_plain())
    words = cuda::cudnn_conv_plans(finish.within(shape_of(p)), ordinal, finish.is_nothing() ? kMostPlans : kMostPlans - kMostApart);
  if (finish.is_nothing()) return words;
  for (const std::string& name : cuda::cudnn_conv_plans(shape_of(p), ordinal, kMostPlans - words.size()))
    words.push_back(std::string(kApart) + name);
  return words;
}

std::optional<std::string> refuse(const OpCall& call) {
  std::string why;
  if (!cuda::find_library(cuda::Which::cudnn, &why)) return "cuDNN cannot be used: " + why;
  return cuda_conv.refuse(call);
}

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  const Problem p = problem_of(args.call);
  if (!suits(p)) return cuda_conv.prepare(args);
  try {
    if (p.channels_last) return prepare_last(args, p);
    return std::make_unique<Cudnn>(args, p, cuda_conv.prepare(args));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    return cuda_conv.prepare(args);
  }
}

std::vector<std::string> algorithms(const PrepareArgs& args) {
  const Problem p = problem_of(args.call);
  if (!suits(p)) return {};
  return p.channels_last ? plans_last(p, Finish(args.call), ordinal_of(args))
                         : cuda::cudnn_conv_plans(shape_of(p, args.tf32), ordinal_of(args), kMostPlans);
}

// Of a weight that is kept channels last.
std::optional<Problem> packed_problem(const OpCall& call, std::span<const std::byte* const> weights) {
  if (window::is_channels_last(call.attributes)) return std::nullopt;
  const Type& w = call.operand(kWeight);
  if (weights.size() <= kWeight || !weights[kWeight] || !goes_channels_last(w.dtype) || product(w.dims) == Dim(0)) return std::nullopt;
  Problem p{.dtype = w.dtype, .group_in = w.dims[1].constant()};
  p.groups = call.operand(kX).dims[1].constant() / p.group_in;
  p.group_out = w.dims[0].constant() / p.groups;
  if (p.groups > 1) return std::nullopt;  // see prepare()
  const std::vector<std::int64_t> kernel = kernel_of(call);
  for (std::size_t i = 0; i < kernel.size(); ++i) p.axes[i].kernel = kernel[i];
  return p;
}

std::size_t packed_bytes(const OpCall& call, std::span<const std::byte* const> weights) {
  const auto p = packed_problem(call, weights);
  return p ? weight_bytes(*p) : 0;
}

// The plain weight stays too, for our own kernel.
std::unique_ptr<Packed> pack(const OpCall& call, std::span<const std::byte* const> weights) {
  const auto p = packed_problem(call, weights);
  if (!p) return nullptr;
  auto packed = std::make_unique<PackedBlock>(weight_bytes(*p));
  weight_copy(*p).launch(weights[kWeight], packed->data(), packed->size_bytes(), cudaStreamPerThread);
  cuda::finish(cudaStreamPerThread, "bringing a weight into cuDNN's layout");
  return packed;
}

}  // namespace

extern const KernelDef cudnn_conv;
const KernelDef cudnn_conv = {.name = "cudnn_conv",
                              .op = "Conv",
                              .refuse = refuse,
                              .prepare = prepare,
                              .pack = pack,
                              .packed_bytes = packed_bytes,
                              .rank = -1,
                              .library = "cudnn",
                              .weaker = "a weight that is infinite or NaN gives NaN where it meets padding, and a sum that is -infinity 0",
                              .device = "cuda",
                              .algorithms = algorithms};

}  // namespace tandem::kernels
