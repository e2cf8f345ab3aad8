// Conv by oneDNN: one single-threaded primitive per image and block of channels, spread over our own threads. oneDNN chooses the layouts; x
// is brought into its own image by image, and what comes out into ours. Images whose channels are last it takes as they are.
#include <algorithm>
#include <unordered_map>

#include "core/check.h"
#include "core/numeric.h"
#include "ops/conv/problem.h"
#include "ops/convert_cpu.h"
#include "ops/half_types_cpu.h"
#include "ops/kernel.h"
#include "ops/matmul/activate_cpu.h"
#include "ops/onednn_shim.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

using namespace conv;
using dnnl::memory;
using onednn::engine;
using onednn::keep_single_threaded;

constexpr std::int64_t kChannelBlock = 16;                  // oneDNN's blocks of channels have this many or fewer
constexpr std::size_t kMostSlots = std::size_t{256} << 20;  // bytes of images in oneDNN's layout at a time

using Tag = memory::format_tag;
constexpr std::array<Tag, 3> kImage = {Tag::ncw, Tag::nchw, Tag::ncdhw}, kWeights = {Tag::oiw, Tag::oihw, Tag::oidhw},
                             kGrouped = {Tag::goiw, Tag::goihw, Tag::goidhw};
constexpr std::array<Tag, 3> kImageLast = {Tag::nwc, Tag::nhwc, Tag::ndhwc}, kWeightsLast = {Tag::owi, Tag::ohwi, Tag::odhwi},
                             kGroupedLast = {Tag::gowi, Tag::gohwi, Tag::godhwi};

// One image and `out` channels of its result, as oneDNN describes them.
struct Descriptors {
  memory::dims x, w, y;
  onednn::ConvWindow window;
  std::size_t spatial = 2;
  bool grouped = false, channels_last = false;
  std::int64_t out = 0;

  memory::desc image(const memory::dims& dims, bool plain) const {
    return {dims, memory::data_type::f32, channels_last ? kImageLast[spatial - 1] : plain ? kImage[spatial - 1] : Tag::any};
  }
  memory::desc weights(bool plain) const {
    const auto& tags = channels_last ? (grouped ? kGroupedLast : kWeightsLast) : grouped ? kGrouped : kWeights;
    return {w, memory::data_type::f32, plain ? tags[spatial - 1] : Tag::any};
  }
  memory::desc bias() const { return {{out}, memory::data_type::f32, Tag::x}; }
};

Descriptors describe(const Problem& p, std::size_t spatial, std::int64_t out) {
  Descriptors d{.x = {1, p.groups * p.group_in},
                .w = {out, p.group_in},
                .y = {1, out},
                .spatial = spatial,
                .grouped = p.groups > 1,
                .channels_last = p.channels_last,
                .out = out};
  if (d.grouped) d.w = {p.groups, p.group_out, p.group_in};
  for (std::size_t i = window::kMaxSpatial - spatial; i < window::kMaxSpatial; ++i) {
    const window::Axis& axis = p.axes[i];
    d.x.push_back(axis.in);
    d.w.push_back(axis.kernel);
    d.y.push_back(axis.out);
    d.window.strides.push_back(axis.stride);
    d.window.dilations.push_back(axis.dilation - 1);
    d.window.before.push_back(axis.before);
    d.window.after.push_back(axis.after);
  }
  return d;
}

dnnl::primitive_attr user_scratchpad() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

dnnl::convolution_forward::primitive_desc make_desc(const Descriptors& d, bool bias) {
  return onednn::conv_desc(d.image(d.x, false), d.weights(false), bias ? d.bias() : memory::desc(), d.image(d.y, false), d.window,
                           user_scratchpad());
}

memory reordered(const memory& from, const memory::desc& to) {
  memory result(to, engine());
  dnnl::stream stream(engine());
  dnnl::reorder(from, result).execute(stream, const_cast<memory&>(from), result);
  stream.wait();
  return result;
}

struct PackedWeights final : Packed {
  memory weights;
  std::size_t size_bytes() const override { return weights.get_desc().get_size(); }
};

// A primitive with its argument list; one per thread.
struct Call {
  dnnl::primitive primitive;
  std::unordered_map<int, memory> arguments;
};

void set(Call& call, int name, const std::byte* at) { call.arguments.at(name).set_data_handle(const_cast<std::byte*>(at)); }

void execute(Call& call) {
  static thread_local dnnl::stream stream(engine());
  call.primitive.execute(stream, call.arguments);
}

class OneDnnConv final : public PreparedKernel {
 public:
  explicit OneDnnConv(const PrepareArgs& args)
      : p_(problem_of(args.call)),
        activation_(activation_of(args.call.attributes.text("activation"))),
        threads_(args.threads),
        bias_(args.call.has_operand(kBias)),
        residual_(args.call.has_operand(kResidual)) {
    keep_single_threaded();
    const std::size_t spatial = args.call.operand(kX).dims.size() - 2;
    const auto* packed = dynamic_cast<const PackedWeights*>(args.packed);
    choose(spatial, packed);
    make_calls();
    lay_out_workspace();
  }

  std::size_t workspace_bytes() const override { return workspace_; }

  void run(const RunArgs& args) const override {
    keep_single_threaded();
    const std::byte* bias = bias_ ? readable(args.operands[kBias], p_.groups * p_.group_out, args.workspace + bias_at_) : nullptr;
    const std::byte* weights = weights_of(args);
    for (std::int64_t first = 0; first < p_.batch; first += wave_) {
      const std::int64_t images = std::min(wave_, p_.batch - first);
      if (x_slot_ != 0)
        args.pool().each(images, [&](std::int64_t i, int thread) {
          bring(args, first + i, args.workspace + x_at_ + static_cast<std::size_t>(i) * x_slot_, thread);
        });
      args.pool().each(images * blocks_, [&](std::int64_t task, int thread) {
        const std::int64_t image = first + task / blocks_;
        const std::byte* x = x_slot_ == 0 ? args.operands[kX] + bytes_of(image * in_image())
                                          : args.workspace + x_at_ + static_cast<std::size_t>(task / blocks_) * x_slot_;
        convolve(args, image, task % blocks_, x, weights, bias, thread);
      });
    }
  }

 private:
  std::int64_t in_image() const { return p_.groups * p_.group_in * p_.in_count(); }
  std::int64_t block_count() const { return d_.out * p_.out_count(); }
  std::size_t bytes_of(std::int64_t elements) const { return static_cast<std::size_t>(bytes(p_.dtype, elements)); }
  static std::size_t floats(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); }

  // The result is cut by channels where there are fewer images than threads; channels that are last do not lie block after block.
  void choose(std::size_t spatial, const PackedWeights* packed) {
    const std::int64_t channels = p_.groups * p_.group_out;
    if (p_.groups == 1 && !p_.channels_last)
      for (blocks_ = std::max<std::int64_t>(1, threads_ / p_.batch); blocks_ > 1; --blocks_)
        if (channels % (blocks_ * kChannelBlock) == 0 && choose_layout(describe(p_, spatial, channels / blocks_), packed)) return;
    d_ = describe(p_, spatial, channels);
    blocks_ = 1;
    if (choose_layout(d_, packed)) return;
    desc_ = make_desc(d_, bias_);
    if (packed) own_weights_ = reordered(packed->weights, desc_.weights_desc());
    // Weights that come at run time are in our layout.
  }

  // Whether the packed weights serve as they are. For a block of channels they must lie one block after the other.
  bool choose_layout(const Descriptors& d, const PackedWeights* packed) {
    d_ = d;
    desc_ = make_desc(d, bias_);
    if (!packed) return blocks_ == 1;
    const memory::desc all = packed->weights.get_desc(), wanted = desc_.weights_desc();
    if (wanted.get_size() * static_cast<std::size_t>(blocks_) != all.get_size()) return false;
    if (blocks_ == 1 ? all != wanted : all.submemory_desc(d.w, memory::dims(d.w.size(), 0)) != wanted) return false;
    packed_ = packed;
    return true;
  }

  void make_calls() {
    const memory::desc plain_x = d_.image(d_.x, true), plain_y = d_.image(d_.y, true);
    moves_x_ = desc_.src_desc() != plain_x;
    moves_y_ = desc_.dst_desc() != plain_y;
    scratch_bytes_ = desc_.scratchpad_desc().get_size();
    const auto reorder_of = [this](const memory::desc& from, const memory::desc& to) {
      const dnnl::reorder::primitive_desc desc(engine(), from, engine(), to, user_scratchpad());
      scratch_bytes_ = std::max(scratch_bytes_, desc.scratchpad_desc().get_size());
      return Call{dnnl::reorder(desc),
                  {{DNNL_ARG_FROM, memory(from, engine(), nullptr)},
                   {DNNL_ARG_TO, memory(to, engine(), nullptr)},
                   {DNNL_ARG_SCRATCHPAD, memory(desc.scratchpad_desc(), engine(), nullptr)}}};
    };
    Call conv{dnnl::convolution_forward(desc_), {}};
    conv.arguments.emplace(DNNL_ARG_SRC, memory(desc_.src_desc(), engine(), nullptr));
    conv.arguments.emplace(DNNL_ARG_WEIGHTS, memory(desc_.weights_desc(), engine(), nullptr));
    conv.arguments.emplace(DNNL_ARG_DST, memory(desc_.dst_desc(), engine(), nullptr));
    conv.arguments.emplace(DNNL_ARG_SCRATCHPAD, memory(desc_.scratchpad_desc(), engine(), nullptr));
    if (bias_) conv.arguments.emplace(DNNL_ARG_BIAS, memory(d_.bias(), engine(), nullptr));
    calls_.assign(static_cast<std::size_t>(threads_), Calls{});
    for (Calls& calls : calls_) {
      calls.conv = conv;
      if (moves_x_) calls.in = reorder_of(plain_x, desc_.src_desc());
      if (moves_y_) calls.out = reorder_of(desc_.dst_desc(), plain_y);
      // Memory objects are shared handles: each thread needs its own.
      for (auto& [name, argument] : calls.conv.arguments) argument = memory(argument.get_desc(), engine(), nullptr);
    }
    moves_weights_ = !packed_ && !own_weights_ && desc_.weights_desc() != d_.weights(true);
    if (moves_weights_) weights_call_ = reorder_of(d_.weights(true), desc_.weights_desc());
  }

  // Shared: bias, weights that come at run time, x in oneDNN's layout. Per thread: scratchpad, an image and a block of the result as plain
  // f32, the block in oneDNN's layout.
  void lay_out_workspace() {
    std::size_t at = 0;
    const auto place = [&at](std::size_t bytes) {
      const std::size_t here = at;
      at += (bytes + 63) / 64 * 64;
      return here;
    };
    const bool half = p_.dtype != DType::f32;
    bias_at_ = place(half && bias_ ? floats(p_.groups * p_.group_out) : 0);
    const bool given = !packed_ && !own_weights_;
    plain_weights_at_ = place(given && half ? floats(p_.groups * p_.group_out * p_.group_in * p_.taps()) : 0);
    weights_at_ = place(moves_weights_ ? desc_.weights_desc().get_size() : 0);
    place_x_slots(place, half);
    threads_at_ = at;
    at = 0;
    place(scratch_bytes_);
    plain_x_at_ = place(half && moves_x_ ? floats(in_image()) : 0);
    y_at_ = place(moves_y_ ? desc_.dst_desc().get_size() : 0);
    plain_y_at_ = place(half ? floats(block_count()) : 0);
    per_thread_ = at;
    workspace_ = threads_at_ + static_cast<std::size_t>(threads_) * per_thread_;
  }

  template <typename Place>
  void place_x_slots(const Place& place, bool half) {
    x_slot_ = moves_x_ || half ? (desc_.src_desc().get_size() + 63) / 64 * 64 : 0;
    wave_ = std::min<std::int64_t>(p_.batch, threads_);
    if (blocks_ > 1) wave_ = p_.batch;
    if (x_slot_ != 0) wave_ = std::max<std::int64_t>(1, std::min<std::int64_t>(wave_, static_cast<std::int64_t>(kMostSlots / x_slot_)));
    if (x_slot_ == 0) wave_ = p_.batch;
    x_at_ = place(x_slot_ * static_cast<std::size_t>(wave_));
  }

  // `count` elements as f32; `copy` is used where they are not.
  const std::byte* readable(const std::byte* from, std::int64_t count, std::byte* copy) const {
    if (p_.dtype == DType::f32) return from;
    to_floats(p_.dtype, from, reinterpret_cast<float*>(copy), count);
    return copy;
  }

  const std::byte* weights_of(const RunArgs& args) const {
    if (own_weights_) return static_cast<const std::byte*>(own_weights_.get_data_handle());
    if (packed_) return static_cast<const std::byte*>(packed_->weights.get_data_handle());
    const std::byte* plain =
        readable(args.operands[kWeight], p_.groups * p_.group_out * p_.group_in * p_.taps(), args.workspace + plain_weights_at_);
    if (!moves_weights_) return plain;
    set(weights_call_, DNNL_ARG_SCRATCHPAD, args.workspace + threads_at_);
    set(weights_call_, DNNL_ARG_FROM, plain);
    set(weights_call_, DNNL_ARG_TO, args.workspace + weights_at_);
    execute(weights_call_);
    return args.workspace + weights_at_;
  }

  // One image of x into oneDNN's layout.
  void bring(const RunArgs& args, std::int64_t image, std::byte* to, int thread) const {
    keep_single_threaded();
    const std::byte* from = args.operands[kX] + bytes_of(image * in_image());
    if (!moves_x_) return to_floats(p_.dtype, from, reinterpret_cast<float*>(to), in_image());
    std::byte* work = args.workspace + threads_at_ + static_cast<std::size_t>(thread) * per_thread_;
    Call& call = calls_[static_cast<std::size_t>(thread)].in;
    set(call, DNNL_ARG_SCRATCHPAD, work);
    set(call, DNNL_ARG_FROM, readable(from, in_image(), work + plain_x_at_));
    set(call, DNNL_ARG_TO, to);
    execute(call);
  }

  void convolve(const RunArgs& args, std::int64_t image, std::int64_t block, const std::byte* x, const std::byte* weights,
                const std::byte* bias, int thread) const {
    keep_single_threaded();
    std::byte* work = args.workspace + threads_at_ + static_cast<std::size_t>(thread) * per_thread_;
    const std::size_t out = bytes_of((image * blocks_ + block) * block_count());
    std::byte* plain = p_.dtype == DType::f32 ? args.results[0] + out : work + plain_y_at_;
    Calls& calls = calls_[static_cast<std::size_t>(thread)];
    set(calls.conv, DNNL_ARG_SCRATCHPAD, work);
    set(calls.conv, DNNL_ARG_SRC, x);
    set(calls.conv, DNNL_ARG_WEIGHTS, weights + desc_.weights_desc().get_size() * static_cast<std::size_t>(block));
    if (bias) set(calls.conv, DNNL_ARG_BIAS, bias + floats(block * d_.out));
    set(calls.conv, DNNL_ARG_DST, moves_y_ ? work + y_at_ : plain);
    execute(calls.conv);
    if (moves_y_) {
      set(calls.out, DNNL_ARG_SCRATCHPAD, work);
      set(calls.out, DNNL_ARG_FROM, work + y_at_);
      set(calls.out, DNNL_ARG_TO, plain);
      execute(calls.out);
    }
    finish(reinterpret_cast<float*>(plain), residual_ ? args.operands[kResidual] + out : nullptr, args.results[0] + out, block_count());
  }

  // to = activation(sums + residual), in pieces that stay in the cache.
  void finish(float* sums, const std::byte* residual, std::byte* to, std::int64_t count) const {
    constexpr std::int64_t kPiece = 2048;
    float other[kPiece];
    for (std::int64_t i = 0; i < count; i += kPiece) {
      const std::int64_t length = std::min(kPiece, count - i);
      float* piece = sums + i;
      if (residual) {
        to_floats(p_.dtype, residual + bytes_of(i), other, length);
        from_floats_plus(DType::f32, piece, reinterpret_cast<const std::byte*>(other), reinterpret_cast<std::byte*>(piece), length);
      }
      if (activation_ != Activation::none) activate_floats(activation_, piece, length);
      if (p_.dtype != DType::f32) from_floats(p_.dtype, piece, to + bytes_of(i), length);
    }
  }

  struct Calls {
    Call conv, in, out;
  };

  Problem p_;
  Activation activation_;
  int threads_;
  bool bias_, residual_;
  Descriptors d_;
  dnnl::convolution_forward::primitive_desc desc_;
  std::int64_t blocks_ = 1, wave_ = 1;
  const PackedWeights* packed_ = nullptr;
  memory own_weights_;
  bool moves_x_ = false, moves_y_ = false, moves_weights_ = false;
  mutable std::vector<Calls> calls_;  // one per thread
  mutable Call weights_call_;
  std::size_t scratch_bytes_ = 0, bias_at_ = 0, plain_weights_at_ = 0, weights_at_ = 0, x_at_ = 0, x_slot_ = 0, threads_at_ = 0,
              plain_x_at_ = 0, y_at_ = 0, plain_y_at_ = 0, per_thread_ = 0, workspace_ = 0;
};

// Nothing to sum: no channels, or nothing but padding. The evaluator is quick then, and reads no weight, of which only the packed form may
// be here.
class Evaluated final : public PreparedKernel {
 public:
  explicit Evaluated(const OpCall& call) : call_(call) {}

  void run(const RunArgs& args) const override {
    std::vector<Tensor> operands;
    for (std::size_t i = 0; i < call_.operands.size(); ++i) {
      if (!call_.has_operand(i)) operands.emplace_back();
      else if (i == kWeight) operands.emplace_back(call_.operand(i).dtype, shape_of(call_.operand(i)));
      else operands.emplace_back(call_.operand(i).dtype, shape_of(call_.operand(i)), args.operands[i], nullptr);
    }
    const Tensor y = call_.op->evaluate(call_, operands).at(0);
    std::copy_n(y.data(), y.size_bytes(), args.results[0]);
  }

 private:
  OpCall call_;
};

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  const Problem p = problem_of(args.call);
  if (p.is_empty() || p.group_in * p.in_count() == 0) return std::make_unique<Evaluated>(args.call);
  return std::make_unique<OneDnnConv>(args);
}

// The call with the channels first and numbers in place of symbols.
OpCall typical(const OpCall& given) {
  OpCall call = channels_first(given);
  const std::vector<std::int64_t> kernel = kernel_of(call);
  std::vector<Dim>& x = call.operands[kX]->dims;
  if (!x[0].is_constant() || x[0] == Dim(0)) x[0] = 1;
  std::vector<Dim> pads = call.attributes.dims("pads");
  for (std::size_t i = 0; i < pads.size(); ++i)
    if (!pads[i].is_constant()) pads[i] = kernel[i % kernel.size()] / 2;
  const auto& dilations = call.attributes.integers("dilations");
  for (std::size_t i = 0; i < kernel.size(); ++i)
    if (!x[i + 2].is_constant() || x[i + 2] == Dim(0))
      x[i + 2] = std::max<std::int64_t>(56, 2 * kernel[i] * (dilations.empty() ? 1 : dilations[i]));
  call.attributes.set("pads", pads);
  call.operands.resize(2);
  call.results = call.op->infer(call);
  return call;
}

// The layout that oneDNN takes for images of some size; where it wants another one for the sizes bound, prepare() copies once more.
std::unique_ptr<Packed> pack(const OpCall& call, std::span<const std::byte* const> weights) {
  if (weights.size() <= kWeight || !weights[kWeight] || product(call.operand(kWeight).dims) == Dim(0)) return nullptr;
  keep_single_threaded();
  Problem p = problem_of(typical(call));
  p.channels_last = window::is_channels_last(call.attributes);
  const std::size_t spatial = call.operand(kX).dims.size() - 2;
  const Descriptors d = describe(p, spatial, p.groups * p.group_out);
  const DType type = call.operand(kWeight).dtype;
  const std::int64_t count = p.groups * p.group_out * p.group_in * p.taps();
  std::vector<float> floats(static_cast<std::size_t>(count));
  to_floats(type, weights[kWeight], floats.data(), count);
  auto packed = std::make_unique<PackedWeights>();
  packed->weights = reordered(memory(d.weights(true), engine(), floats.data()), make_desc(d, call.has_operand(kBias)).weights_desc());
  return packed;
}

bool packs_operand(const OpCall&, std::size_t operand) { return operand == kWeight; }

std::optional<std::string> refuse(const OpCall& call) {
  if (!is_vector_float(call.operand(kX).dtype)) return "it convolves f32, f16 and bf16 only";
  if (call.has_operand(kResidual) && call.operand(kResidual).dims != call.results.at(0).dims)
    return "the residual is not shaped as the result";
  return std::nullopt;
}

}  // namespace

extern const KernelDef onednn_conv;
const KernelDef onednn_conv = {
    .name = "onednn_conv",
    .op = "Conv",
    .refuse = refuse,
    .prepare = prepare,
    .pack = pack,
    .packs_operand = packs_operand,
    .library = "onednn",
};

}  // namespace tandem::kernels
