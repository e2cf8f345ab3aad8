#include "ops/reduce/reduce_cuda.cuh"

namespace tandem::cuda {
namespace {

// In 64 bits that wrap, whatever the type: u64 counts as i64, as everywhere.
template <typename T>
struct IntegerReduce {
  using Element = T;
  using Result = T;
  using Acc = std::int64_t;
  ReduceKind kind;
  std::int64_t count;

  __device__ Acc start() const {
    if (kind == ReduceKind::max) return std::int64_t{-0x7fffffffffffffff} - 1;
    if (kind == ReduceKind::min) return 0x7fffffffffffffff;
    return kind == ReduceKind::prod ? 1 : 0;
  }
  __device__ void update(Acc& acc, Element element, std::uint32_t) const {
    const auto x = static_cast<std::int64_t>(element);
    if (kind == ReduceKind::sum_square) join(acc, times(x, x));
    else if (kind == ReduceKind::l1) join(acc, x < 0 ? times(x, -1) : x);
    else join(acc, x);
  }
  __device__ void join(Acc& acc, Acc x) const {
    if (kind == ReduceKind::max) acc = x > acc ? x : acc;
    else if (kind == ReduceKind::min) acc = x < acc ? x : acc;
    else if (kind == ReduceKind::prod) acc = times(acc, x);
    else acc = static_cast<std::int64_t>(static_cast<std::uint64_t>(acc) + static_cast<std::uint64_t>(x));
  }
  __device__ Result finish(Acc acc) const { return static_cast<Result>(kind == ReduceKind::mean ? acc / count : acc); }

 private:
  static __device__ std::int64_t times(std::int64_t a, std::int64_t b) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b));
  }
};

}  // namespace

void launch_reduce_integers(const ReducePlan& plan, ReduceKind kind, DType dtype, const void* x, void* y, void* parts,
                            cudaStream_t stream) {
  with_integer_type(dtype, [&](auto tag) {
    using Op = IntegerReduce<typename decltype(tag)::type>;
    launch_planned<Op, 1>(Op{kind, plan.extent}, plan, x, y, parts, stream);
  });
}

}  // namespace tandem::cuda
