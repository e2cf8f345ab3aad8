// Every pointwise op, alone or as a fused program, and Gated: CUDA C++ made from the program, compiled when it is needed.
#include <cstring>

#include "core/check.h"
#include "device/cuda/compile.h"
#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/pointwise/pointwise_view_cuda.h"
#include "ops/shape_rules.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {
namespace {

using namespace pointwise;

constexpr const char* kName = "tandem_pointwise";

// An operand of the program: an operand of the op, from one of its elements on.
struct Source {
  std::size_t operand;
  std::size_t offset;  // bytes
};

// A call as a program over its operands.
struct Viewed {
  PointwiseView view;
  std::vector<Source> sources;
};

std::string text_of(const PointwiseView& view) {
  return pointwise_conversions() + pointwise_prelude() + pointwise_kernel(view.form, kName);
}

class CudaPointwise final : public PreparedKernel {
 public:
  CudaPointwise(const PrepareArgs& args, Viewed viewed) : view_(std::move(viewed.view)), sources_(std::move(viewed.sources)) {
    if (view_.blocks > 0) kernel_ = cuda::compiled_kernel(text_of(view_), kName, args.device->sm());
  }

  void run(const RunArgs& args) const override {
    if (view_.blocks == 0) return;
    PointwiseArgs p = view_.args;
    const auto fits = [](const void* address, std::size_t alignment) { return reinterpret_cast<std::uintptr_t>(address) % alignment == 0; };
    bool aligned = fits(args.results[0], view_.alignments.back());
    for (std::size_t n = 0; n < sources_.size(); ++n) {
      p.in[n] = args.operands[sources_[n].operand] + sources_[n].offset;
      aligned = aligned && fits(p.in[n], view_.alignments[n]);
    }
    p.out = args.results[0];
    p.fault = cuda::fault_word_of(args.stream, cuda::FaultKind::division);
    p.aligned = aligned ? 1 : 0;
    void* parameters[] = {&p};
    const auto start = [&](const cudaLaunchConfig_t* configuration) {
      return cudaLaunchKernelExC(configuration, reinterpret_cast<const void*>(kernel_), parameters);
    };
    cuda::check(cuda::with_configuration(cuda::start_of(args), dim3(view_.blocks), dim3(kPointwiseThreads), 0, start),
                "a pointwise kernel");
  }

 private:
  PointwiseView view_;
  std::vector<Source> sources_;
  cudaKernel_t kernel_ = nullptr;
};

std::optional<Program> program_of(const OpCall& call) {
  if (call.op->name == "Pointwise") return Program::parse(call.attributes.text("program"));
  const auto statement = statement_for(call.op->name, call.attributes);
  if (!statement || !call.op->pointwise) return std::nullopt;
  return Program{{*statement}};
}

std::vector<DType> dtypes_of(const OpCall& call) {
  std::vector<DType> types;
  for (std::size_t i = 0; i < call.operands.size(); ++i) types.push_back(call.operand(i).dtype);
  return types;
}

std::optional<std::string> refuse(const OpCall& call) {
  const auto program = program_of(call);
  if (!program) return "it is no function of pointwise programs";
  const std::vector<DType> operands = dtypes_of(call);
  std::vector<DType> types = program->types(operands);
  types.insert(types.end(), operands.begin(), operands.end());
  for (const DType type : types)
    if (!can_be_source(type)) return fmt::format("it computes no {}", to_string(type));
  if (operands.size() > kMostOperands || call.results.at(0).rank() > kMostDims) return "it has too many operands or dimensions";
  return std::nullopt;
}

Viewed view_of(const OpCall& call) {
  const Shape shape = shape_of(call.results.at(0));
  std::vector<Shape> strides;
  std::vector<Source> sources;
  for (std::size_t i = 0; i < call.operands.size(); ++i) {
    strides.push_back(strides_over(shape_of(call.operand(i)), shape));
    sources.push_back({i, 0});
  }
  return {pointwise_view(program_of(call).value(), dtypes_of(call), strides, call.results[0].dtype, shape), std::move(sources)};
}

std::optional<std::string> refuse_gated(const OpCall& call) {
  if (!can_be_source(call.operand(0).dtype)) return "it computes no such floats";
  if (call.operand(0).rank() > kMostDims) return "it has too many dimensions";
  return std::nullopt;
}

// The halves as two operands of a program.
Viewed view_of_gated(const OpCall& call) {
  const std::string& activation = call.attributes.text("activation");
  const DType dtype = call.operand(0).dtype;
  const Shape shape = shape_of(call.results.at(0));
  const std::pair<std::string_view, std::string_view> functions[] = {{"gelu", "Gelu"}, {"gelu_tanh", "GeluTanh"}, {"silu", "Silu"},
                                                                     {"relu", "Relu"}, {"tanh", "Tanh"},          {"sigmoid", "Sigmoid"}};
  std::string text = "Mul(a0,a1)";
  for (const auto& [word, function] : functions)
    if (word == activation) text = fmt::format("t0={}(a0);Mul(t0,a1)", function);
  const Shape strides = row_major_strides(shape_of(call.operand(0)));
  const std::size_t half = bytes(dtype, shape.back());
  return {pointwise_view(Program::parse(text), {dtype, dtype}, {strides, strides}, dtype, shape), {{0, 0}, {0, half}}};
}

template <Viewed (*kView)(const OpCall&)>
std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return std::make_unique<CudaPointwise>(args, kView(args.call));
}

template <Viewed (*kView)(const OpCall&)>
std::vector<std::string> texts(const OpCall& call) {
  const Viewed viewed = kView(call);
  if (viewed.view.blocks == 0) return {};
  return {text_of(viewed.view)};
}

}  // namespace

extern const KernelDef cuda_pointwise;
const KernelDef cuda_pointwise = {
    .name = "cuda_pointwise",
    .op = "",
    .refuse = refuse,
    .prepare = prepare<view_of>,
    .in_place_operand = 0,
    .library = "nvrtc",
    .device = "cuda",
    .texts = texts<view_of>,
    .dependent = true,
};

extern const KernelDef cuda_gated;
const KernelDef cuda_gated = {
    .name = "cuda_gated",
    .op = "Gated",
    .refuse = refuse_gated,
    .prepare = prepare<view_of_gated>,
    .library = "nvrtc",
    .device = "cuda",
    .texts = texts<view_of_gated>,
    .dependent = true,
};

}  // namespace tandem::kernels
