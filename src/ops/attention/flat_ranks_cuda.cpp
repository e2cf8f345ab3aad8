// FlatAttention over a split sequence on GPUs: rows of heads are pushed from where they lie, or copied to where the kernels of Attention
// over ranks want them.
#include "core/tensor.h"
#include "ops/attention/flat.h"
#include "ops/attention/moves_cuda.h"
#include "ops/attention/pushed_cuda.h"
#include "ops/attention/pushed_keys_cuda.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {

extern const KernelDef cuda_attention_all_to_all, cuda_attention_all_gather, cuda_attention_all_gather_groups, cuda_attention_ring;

namespace {

using namespace attention;
using cuda::CopyAxis;
using cuda::StridedCopy;

std::vector<CopyAxis> axes_of(const Shape& heads_first, const Steps& from, const Steps& to) {
  return {{heads_first[0], from.batch, to.batch},
          {heads_first[1], from.head, to.head},
          {heads_first[2], from.row, to.row},
          {heads_first[3], 1, 1}};
}

// Attention of dense operands, between copies.
class Copied final : public PreparedKernel {
 public:
  Copied(const PrepareArgs& args, const FlatProblem& flat, const KernelDef& inner) : inner_(inner.prepare(args)) {
    const AttentionProblem& p = flat.problem;
    const int element = bits(p.dtype) / 8;
    const Steps* steps[] = {&p.q_steps, &p.k_steps, &p.v_steps};
    for (const std::size_t i : {kQ, kK, kV}) {
      const Shape dims = shape_of(flat.call.operand(i));
      const std::int64_t begin = static_cast<std::int64_t>(flat.begins[i]) / element;
      copies_[i] = add(dims, StridedCopy(element, axes_of(dims, *steps[i], dense_steps(dims[1], dims[2], dims[3])), begin), element);
    }
    const Shape dims = shape_of(flat.call.results[0]);
    copies_[3] = add(dims, StridedCopy(element, axes_of(dims, dense_steps(dims[1], dims[2], dims[3]), p.out_steps)), element);
    at_rest_ = layout_.add(inner_->workspace_bytes());
  }

  std::size_t workspace_bytes() const override { return layout_.total(); }

  void run(const RunArgs& args) const override {
    const cudaStream_t stream = cuda::handle_of(args.stream);
    std::vector<const std::byte*> operands(args.operands.begin(), args.operands.end());
    for (const std::size_t i : {kQ, kK, kV}) {
      std::byte* const dense = args.workspace + copies_[i]->at;
      if (copies_[i]->any) copies_[i]->copy.launch(operands[i], dense, stream);
      operands[i] = dense;
    }
    std::byte* const out = args.workspace + copies_[3]->at;
    inner_->run({operands, std::span(&out, 1), args.workspace + at_rest_, args.stream, args.deadline, false, 0, nullptr, args.auxiliary});
    if (copies_[3]->any) copies_[3]->copy.launch(out, args.results[0], stream);
    cuda::check_launch("copying heads");
  }

 private:
  struct Part {
    StridedCopy copy;
    std::size_t at;  // in the workspace
    bool any;
  };
  Part add(const Shape& dims, StridedCopy copy, int element) {
    const auto count = static_cast<std::size_t>(element_count(dims));
    return {std::move(copy), layout_.add(count * static_cast<std::size_t>(element)), count > 0};
  }

  std::unique_ptr<PreparedKernel> inner_;
  cuda::Layout layout_;
  std::optional<Part> copies_[4];  // q, k, v, the result
  std::size_t at_rest_ = 0;
};

template <const KernelDef& kInner>
std::optional<std::string> refuse(const OpCall& call) {
  return kInner.refuse(heads_first(call));
}
template <const KernelDef& kInner>
Dim sent_bytes(const OpCall& call) {
  return kInner.sent_bytes(heads_first(call));
}
template <const KernelDef& kInner>
std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  const FlatProblem flat = flat_problem_of(args.call);
  const PrepareArgs inner{
      .call = flat.call, .weights = args.weights, .threads = args.threads, .group = args.group, .device = args.device, .exact = args.exact};
  if (&kInner == &cuda_attention_all_to_all)
    if (auto pushed = prepare_pushed_attention(inner, flat.problem, flat.begins)) return pushed;
  if (&kInner == &cuda_attention_all_gather_groups)
    if (auto pushed = prepare_pushed_keys(inner, flat.problem, flat.begins)) return pushed;
  return std::make_unique<Copied>(inner, flat, kInner);
}

template <const KernelDef& kInner>
constexpr KernelDef flat_kernel(std::string_view name, int rank, int auxiliary_streams = 0) {
  return {.name = name,
          .op = "FlatAttention",
          .refuse = refuse<kInner>,
          .prepare = prepare<kInner>,
          .rank = rank,
          .sent_bytes = sent_bytes<kInner>,
          .device = "cuda",
          .auxiliary_streams = auxiliary_streams};
}

}  // namespace

extern const KernelDef cuda_flat_attention_all_to_all, cuda_flat_attention_all_gather, cuda_flat_attention_all_gather_groups,
    cuda_flat_attention_ring;
const KernelDef cuda_flat_attention_all_to_all = flat_kernel<cuda_attention_all_to_all>("cuda_flat_attention_all_to_all", 1, 2);
const KernelDef cuda_flat_attention_all_gather = flat_kernel<cuda_attention_all_gather>("cuda_flat_attention_all_gather", 3);
const KernelDef cuda_flat_attention_all_gather_groups =
    flat_kernel<cuda_attention_all_gather_groups>("cuda_flat_attention_all_gather_groups", 2, 1);
const KernelDef cuda_flat_attention_ring = flat_kernel<cuda_attention_ring>("cuda_flat_attention_ring", 4, 1);

}  // namespace tandem::kernels
