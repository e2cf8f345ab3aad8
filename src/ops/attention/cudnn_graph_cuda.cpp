#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // through which it calls cuDNN
}
#include <cudnn_frontend.h>

#include <map>
#include <mutex>
#include <unordered_map>

#include "core/check.h"
#include "device/cuda/library.h"
#include "ops/attention/cudnn_attention_cuda.h"

namespace tandem::cuda {
namespace {

namespace fe = cudnn_frontend;

enum Id : std::int64_t { kQ = 1, kK, kV, kOut, kLse };

// A handle has a stream, so it serves one thread at a time.
struct Handle {
  std::mutex mutex;
  cudnnHandle_t handle = nullptr;
};

Handle& handle_of_gpu(int ordinal) {
  static std::mutex mutex;
  static std::map<int, Handle> handles;
  const std::lock_guard lock(mutex);
  const Library& cudnn = library(Which::cudnn);
  fe::cudnn_dlhandle = cudnn.handle();
  Handle& made = handles[ordinal];
  if (!made.handle && fe::detail::create_handle(&made.handle) != CUDNN_STATUS_SUCCESS) fail(ErrorCode::internal, "cuDNN {} does not start", cudnn.version());
  return made;
}

void check_frontend(fe::error_t status, const char* what) {
  if (status.is_bad()) fail(ErrorCode::unsupported, "cuDNN {}: {}: {}", library(Which::cudnn).version(), what, status.get_message());
}

std::shared_ptr<fe::graph::Tensor_attributes> operand(fe::graph::Graph& graph, Id id, const char* name, const std::vector<std::int64_t>& dims,
                                                      const attention::Steps& steps) {
  return graph.tensor(fe::graph::Tensor_attributes().set_uid(id).set_name(name).set_dim(dims).set_stride({steps.batch, steps.head, steps.row, 1}));
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
    stats->set_output(true).set_uid(kLse).set_data_type(fe::DataType_t::FLOAT).set_dim({s.batch, s.heads, s.rows, 1}).set_stride({s.heads * s.rows, s.rows, 1, 1});
  const std::lock_guard lock(state_->handle->mutex);
  check_frontend(graph.build(state_->handle->handle, {fe::HeurMode_t::A}), "planning attention");
  check_frontend(graph.get_workspace_size(state_->workspace), "planning attention");
}

CudnnAttention::~CudnnAttention() = default;

std::size_t CudnnAttention::workspace_bytes() const { return static_cast<std::size_t>(state_->workspace); }

void CudnnAttention::run(const void* q, const void* k, const void* v, void* out, float* lse, void* workspace, cudaStream_t stream) const {
  std::unordered_map<std::int64_t, void*> pack = {{kQ, const_cast<void*>(q)}, {kK, const_cast<void*>(k)}, {kV, const_cast<void*>(v)}, {kOut, out}};
  if (lse) pack[kLse] = lse;
  const std::lock_guard lock(state_->handle->mutex);
  fe::detail::set_stream(state_->handle->handle, stream);
  check_frontend(state_->graph->execute(state_->handle->handle, pack, workspace), "attention");
}

}  // namespace tandem::cuda
