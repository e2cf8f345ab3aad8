// Attention over a split sequence: every rank gathers all keys and values and computes its own rows.
#include "core/tensor.h"
#include "ops/attention/ranks_cpu.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

using namespace attention;

class AttentionAllGather final : public PreparedKernel {
 public:
  explicit AttentionAllGather(const PrepareArgs& args)
      : spread_(args), problem_(spread_.problem), k_dims_(shape_of(args.call.operand(kK))), v_dims_(shape_of(args.call.operand(kV))) {
    problem_.k_steps = dense_steps(problem_.kv_heads, spread_.columns.padded(), problem_.size);
    problem_.v_steps = dense_steps(problem_.kv_heads, spread_.columns.padded(), problem_.value_size);
    const auto ranks = static_cast<std::size_t>(spread_.ranks);
    k_bytes_ = aligned(ranks * bytes(problem_.dtype, element_count(k_dims_)));
    v_bytes_ = aligned(ranks * bytes(problem_.dtype, element_count(v_dims_)));
    ordered_bytes_ = spread_.columns.zigzag ? std::max(k_bytes_, v_bytes_) : 0;
  }

  std::size_t workspace_bytes() const override {
    return k_bytes_ + v_bytes_ + ordered_bytes_ + attention_workspace(problem_, spread_.threads);
  }

  void run(const RunArgs& args) const override {
    RunValues values = spread_.values(args);
    std::byte *k = args.workspace, *v = k + k_bytes_, *unordered = v + v_bytes_;
    gather(args, values.k, k_dims_, unordered, k);
    gather(args, values.v, v_dims_, unordered, v);
    values.k = k;
    values.v = v;
    clear_padding(spread_.rows, values.out,
                  bytes(problem_.dtype, spread_.rows.local * problem_.batch * problem_.heads * problem_.value_size));
    for (const Segment& rows : spread_.rows.of(spread_.rank)) {
      const Piece piece(problem_, values, rows, {0, 0, spread_.columns.extent});
      run_attention(piece.problem, args.pool, unordered + ordered_bytes_);
    }
  }

 private:
  // [B,H,local,size] of all ranks to [B,H,ranks·local,size] in order of position.
  void gather(const RunArgs& args, const std::byte* from, const Shape& dims, std::byte* unordered, std::byte* to) const {
    const bool zigzag = spread_.columns.zigzag;
    spread_.run(
        {.kind = Collective::all_gather, .dtype = problem_.dtype, .dims = dims, .axis = 2, .in = from, .out = zigzag ? unordered : to},
        args);
    if (zigzag) order_positions(spread_.columns, args.pool, unordered, to, dims[0] * dims[1], bytes(problem_.dtype, dims[3]));
  }

  Spread spread_;
  AttentionProblem problem_;
  Shape k_dims_, v_dims_;
  std::size_t k_bytes_ = 0, v_bytes_ = 0, ordered_bytes_ = 0;
};

}  // namespace

extern const KernelDef attention_all_gather;
const KernelDef attention_all_gather = {
    .name = "attention_all_gather",
    .op = "Attention",
    .refuse = [](const OpCall& call) { return ranks_refusal(call, "qkv", "all_gather"); },
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<AttentionAllGather>(args); },
    .sent_bytes = sent_keys_and_values,
};

}  // namespace tandem::kernels
