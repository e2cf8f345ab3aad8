// The graphs of cuDNN that attention and convolution run: the one file that sees its C++ frontend.
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // through which it calls cuDNN
}
#include <cudnn_frontend.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <unordered_map>

#include "core/check.h"
#include "device/cuda/library.h"
#include "ops/attention/cudnn_attention_cuda.h"
#include "ops/conv/cudnn_conv_cuda.h"

namespace tandem::cuda {
namespace {

namespace fe = cudnn_frontend;

enum Id : std::int64_t { kQ = 1, kK, kV, kOut, kLse };
enum ConvId : std::int64_t { kX = 1, kWeight, kResult, kBias, kResidual };

struct ConvPlan;

// A handle has a stream, so it serves one thread at a time.
struct Handle {
  std::mutex mutex;
  cudnnHandle_t handle = nullptr;
  std::map<std::pair<CudnnConvShape, std::string>, std::weak_ptr<ConvPlan>> convs;  // by what was asked for
};

Handle& handle_of_gpu(int ordinal) {
  static std::mutex mutex;
  static std::map<int, Handle> handles;
  const std::lock_guard lock(mutex);
  const Library& cudnn = library(Which::cudnn);
  fe::cudnn_dlhandle = cudnn.handle();
  Handle& made = handles[ordinal];
  if (!made.handle && fe::detail::create_handle(&made.handle) != CUDNN_STATUS_SUCCESS)
    fail(ErrorCode::internal, "cuDNN {} does not start", cudnn.version());
  return made;
}

void check_frontend(fe::error_t status, const char* what) {
  if (status.is_bad()) fail(ErrorCode::unsupported, "cuDNN {}: {}: {}", library(Which::cudnn).version(), what, status.get_message());
}

std::shared_ptr<fe::graph::Tensor_attributes> operand(fe::graph::Graph& graph, Id id, const char* name,
                                                      const std::vector<std::int64_t>& dims, const attention::Steps& steps) {
  return graph.tensor(
      fe::graph::Tensor_attributes().set_uid(id).set_name(name).set_dim(dims).set_stride({steps.batch, steps.head, steps.row, 1}));
}

}  // namespace

struct CudnnAttention::State {
  Handle* handle = nullptr;
  std::shared_ptr<fe::graph::Graph> graph = std::make_shared<fe::graph::Graph>();
  std::int64_t workspace = 0;
};

CudnnAttention::CudnnAttention(const CudnnAttentionShape& s, int ordinal) : state_(std::make_unique<State>()) {
  state_->handle = &handle_of_gpu(ordinal);
  fe::graph::Graph& graph = *state_->graph;
  graph.set_io_data_type(s.dtype == DType::f16 ? fe::DataType_t::HALF : fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  const auto q = operand(graph, kQ, "q", {s.batch, s.heads, s.rows, s.size}, s.q);
  const auto k = operand(graph, kK, "k", {s.batch, s.kv_heads, s.columns, s.size}, s.k);
  const auto v = operand(graph, kV, "v", {s.batch, s.kv_heads, s.columns, s.value_size}, s.v);
  auto options = fe::graph::SDPA_attributes().set_name("attention").set_generate_stats(s.lse).set_attn_scale(s.scale);
  using Causal = CudnnAttentionShape::Causal;
  if (s.causal == Causal::upper_left) options.set_causal_mask(true);
  if (s.causal == Causal::lower_right) options.set_causal_mask_bottom_right(true);
  const auto [out, stats] = graph.sdpa(q, k, v, options);
  out->set_output(true).set_uid(kOut).set_dim({s.batch, s.heads, s.rows, s.value_size}).set_stride({s.out.batch, s.out.head, s.out.row, 1});
  if (s.lse)
    stats->set_output(true)
        .set_uid(kLse)
        .set_data_type(fe::DataType_t::FLOAT)
        .set_dim({s.batch, s.heads, s.rows, 1})
        .set_stride({s.heads * s.rows, s.rows, 1, 1});
  const std::lock_guard lock(state_->handle->mutex);
  check_frontend(graph.build(state_->handle->handle, {fe::HeurMode_t::A}), "planning attention");
  check_frontend(graph.get_workspace_size(state_->workspace), "planning attention");
}

CudnnAttention::~CudnnAttention() = default;

std::size_t CudnnAttention::workspace_bytes() const { return static_cast<std::size_t>(state_->workspace); }

void CudnnAttention::run(const void* q, const void* k, const void* v, void* out, float* lse, void* workspace, cudaStream_t stream) const {
  std::unordered_map<std::int64_t, void*> pack = {
      {kQ, const_cast<void*>(q)}, {kK, const_cast<void*>(k)}, {kV, const_cast<void*>(v)}, {kOut, out}};
  if (lse) pack[kLse] = lse;
  const std::lock_guard lock(state_->handle->mutex);
  fe::detail::set_stream(state_->handle->handle, stream);
  check_frontend(state_->graph->execute(state_->handle->handle, pack, workspace), "attention");
}

namespace {

constexpr std::int64_t kMostWorkspace = std::int64_t{256} << 20;  // of a plan that is one of several to choose from

// Dense, in the order of the extents or with the channels last.
std::vector<std::int64_t> strides_of(const std::vector<std::int64_t>& dims, bool channels_last) {
  std::vector<std::int64_t> strides(dims.size(), 1);
  std::int64_t step = channels_last ? dims[1] : 1;
  for (std::size_t d = dims.size(); d-- > 2;) strides[d] = step, step *= dims[d];
  strides[1] = channels_last ? 1 : step;
  strides[0] = channels_last ? step : step * dims[1];
  return strides;
}

fe::DataType_t type_of(DType dtype) {
  return dtype == DType::f32 ? fe::DataType_t::FLOAT : dtype == DType::f16 ? fe::DataType_t::HALF : fe::DataType_t::BFLOAT16;
}

// Engines that would give other digits than sums in f32, or spread what is no number further than the windows that see it.
std::vector<fe::NumericalNote_t> unwanted(const CudnnConvShape& shape) {
  using Note = fe::NumericalNote_t;
  std::vector<Note> notes = {Note::WINOGRAD, Note::WINOGRAD_TILE_4x4, Note::WINOGRAD_TILE_6x6,          Note::WINOGRAD_TILE_13x13,
                             Note::FFT,      Note::NONDETERMINISTIC,  Note::REDUCED_PRECISION_REDUCTION};
  if (shape.dtype != DType::f32) return notes;
  notes.push_back(Note::DOWN_CONVERT_INPUTS);           // to 16 bits
  if (!shape.tf32) notes.push_back(Note::TENSOR_CORE);  // of f32 they multiply TF32
  return notes;
}

// A convolution as cuDNN is asked about it.
class ConvGraph : public fe::graph::Graph {
 public:
  ConvGraph(const CudnnConvShape& shape, cudnnHandle_t handle) : unwanted_(unwanted(shape)) {
    describe(shape);
    check_frontend(validate(), "planning a convolution");
    check_frontend(build_operation_graph(handle), "planning a convolution");
  }

  // The places of the plans that a mode of its heuristics adds, best first; without those of no use to us. None of them is built.
  std::vector<std::int64_t> ask(fe::HeurMode_t mode) {
    std::vector<std::int64_t> places;
    std::int64_t place = get_execution_plan_count();
    if (create_execution_plans({mode}).is_bad()) return places;
    deselect_numeric_notes(unwanted_);
    for (; place < get_execution_plan_count(); ++place)
      if (plans.check_support_at_index(place).is_good()) places.push_back(place);
    return places;
  }

  // Engine and knobs, "eng37_k2=1_k14=3".
  std::string name(std::int64_t place) const {
    std::string name;
    check_frontend(get_plan_name_at_index(place, name), "naming a plan");
    return name;
  }

 private:
  void describe(const CudnnConvShape& s) {
    set_io_data_type(type_of(s.dtype)).set_intermediate_data_type(fe::DataType_t::FLOAT).set_compute_data_type(fe::DataType_t::FLOAT);
    const auto with = [&](ConvId id, const char* name, const std::vector<std::int64_t>& dims) {
      return tensor(fe::graph::Tensor_attributes().set_uid(id).set_name(name).set_dim(dims).set_stride(strides_of(dims, s.channels_last)));
    };
    const auto options = fe::graph::Conv_fprop_attributes()
                             .set_name("convolution")
                             .set_pre_padding(s.before)
                             .set_post_padding(s.after)
                             .set_stride(s.strides)
                             .set_dilation(s.dilations);
    auto y = conv_fprop(with(kX, "x", s.x), with(kWeight, "w", s.w), options);
    const auto step = [](fe::PointwiseMode_t mode) { return fe::graph::Pointwise_attributes().set_mode(mode); };
    // The order of cudnnConvolutionBiasActivationForward, for which not only engines that are compiled may be had.
    if (s.added) y = pointwise(y, with(kResidual, "residual", s.y), step(fe::PointwiseMode_t::ADD));
    if (s.biased) {
      std::vector<std::int64_t> bias(s.y.size(), 1);
      bias[1] = s.y[1];
      y = pointwise(y, with(kBias, "bias", bias), step(fe::PointwiseMode_t::ADD));
    }
    if (s.relu) y = pointwise(y, step(fe::PointwiseMode_t::RELU_FWD));  // NaN stays
    y->set_output(true).set_uid(kResult).set_dim(s.y).set_stride(strides_of(s.y, s.channels_last));
  }

  std::vector<fe::NumericalNote_t> unwanted_;
};

// Runs f, in which the frontend may also say in its older way that it cannot.
template <typename F>
auto planning(const F& f) {
  try {
    return f();
  } catch (const fe::cudnnException& error) {
    fail(ErrorCode::unsupported, "cuDNN {}: planning a convolution: {}", library(Which::cudnn).version(), error.what());
  }
}

// Built. Calls that ask for the same share it.
struct ConvPlan {
  std::unique_ptr<ConvGraph> graph;
  std::int64_t workspace = 0;
};

std::unique_ptr<ConvGraph> build_named(const CudnnConvShape& shape, cudnnHandle_t handle, const std::string& name) {
  auto graph = std::make_unique<ConvGraph>(shape, handle);
  graph->deselect_workspace_greater_than(kMostWorkspace);
  for (const fe::HeurMode_t mode : {fe::HeurMode_t::A, fe::HeurMode_t::B, fe::HeurMode_t::FALLBACK})
    for (const std::int64_t place : graph->ask(mode))
      if (graph->name(place) == name) return graph->build_plan_at_index(place).is_good() ? std::move(graph) : nullptr;
  return nullptr;
}

std::unique_ptr<ConvGraph> build_first(const CudnnConvShape& shape, cudnnHandle_t handle) {
  auto graph = std::make_unique<ConvGraph>(shape, handle);
  check_frontend(graph->create_execution_plans({fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK}), "planning a convolution");
  graph->deselect_numeric_notes(unwanted(shape));
  check_frontend(graph->check_support(handle), "planning a convolution");
  check_frontend(graph->build_plans(handle), "planning a convolution");
  return graph;
}

// The handle is locked.
std::shared_ptr<ConvPlan> plan_of(Handle& handle, const CudnnConvShape& shape, const std::string& name) {
  const auto key = std::pair(shape, name);
  if (const auto found = handle.convs.find(key); found != handle.convs.end())
    if (auto known = found->second.lock()) return known;
  auto plan = std::make_shared<ConvPlan>();
  planning([&] {
    if (!name.empty()) plan->graph = build_named(shape, handle.handle, name);
    if (!plan->graph) plan->graph = build_first(shape, handle.handle);
    check_frontend(plan->graph->get_workspace_size(plan->workspace), "planning a convolution");
  });
  std::erase_if(handle.convs, [](const auto& one) { return one.second.expired(); });
  handle.convs[key] = plan;
  return plan;
}

// By turns of the two heuristics, of which now one and now the other is right; then of what runs anywhere.
std::vector<std::string> names_by_turns(ConvGraph& graph) {
  const auto quick = graph.ask(fe::HeurMode_t::A), careful = graph.ask(fe::HeurMode_t::B), rest = graph.ask(fe::HeurMode_t::FALLBACK);
  std::vector<std::string> names;
  const auto add = [&](const std::vector<std::int64_t>& places, std::size_t i) {
    if (i >= places.size()) return;
    const std::string name = graph.name(places[i]);
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  };
  for (std::size_t i = 0; i < std::max(quick.size(), careful.size()); ++i) add(quick, i), add(careful, i);
  for (std::size_t i = 0; i < rest.size(); ++i) add(rest, i);
  return names;
}

}  // namespace

std::vector<std::string> cudnn_conv_plans(const CudnnConvShape& shape, int ordinal, std::size_t most) {
  Handle& handle = handle_of_gpu(ordinal);
  const std::lock_guard lock(handle.mutex);
  std::vector<std::string> names;
  try {
    planning([&] {
      ConvGraph graph(shape, handle.handle);
      graph.deselect_workspace_greater_than(kMostWorkspace);
      names = names_by_turns(graph);
    });
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
  }
  names.resize(std::min(names.size(), most));
  return names;
}

struct CudnnConv::State {
  Handle* handle = nullptr;
  std::shared_ptr<ConvPlan> plan;
};

CudnnConv::CudnnConv(const CudnnConvShape& shape, int ordinal, std::string_view plan) : state_(std::make_unique<State>()) {
  state_->handle = &handle_of_gpu(ordinal);
  const std::lock_guard lock(state_->handle->mutex);
  state_->plan = plan_of(*state_->handle, shape, std::string(plan));
}

CudnnConv::~CudnnConv() = default;

std::size_t CudnnConv::workspace_bytes() const { return static_cast<std::size_t>(state_->plan->workspace); }

void CudnnConv::run(const void* x, const void* w, const void* bias, const void* residual, void* y, void* workspace,
                    cudaStream_t stream) const {
  std::unordered_map<std::int64_t, void*> pack = {{kX, const_cast<void*>(x)}, {kWeight, const_cast<void*>(w)}, {kResult, y}};
  if (bias) pack[kBias] = const_cast<void*>(bias);
  if (residual) pack[kResidual] = const_cast<void*>(residual);
  const std::lock_guard lock(state_->handle->mutex);
  fe::detail::set_stream(state_->handle->handle, stream);
  check_frontend(state_->plan->graph->execute(state_->handle->handle, pack, workspace), "convolution");
}

}  // namespace tandem::cuda
