#include "gpu/peer_rank.h"

#include <exception>

namespace tandem::test {
namespace {

constexpr DType kReducing[] = {DType::f32, DType::f16, DType::bf16, DType::f64, DType::f8e4m3, DType::f8e5m2,
                               DType::i8,  DType::u8,  DType::i16,  DType::i32, DType::i64};
constexpr DType kMoving[] = {DType::f32, DType::bf16, DType::f8e5m2, DType::i64, DType::boolean};
constexpr Reduction kReductions[] = {Reduction::sum, Reduction::prod, Reduction::max, Reduction::min, Reduction::avg};

constexpr std::size_t kArena = std::size_t{192} << 20;

}  // namespace

Arena::Arena() {
  void* memory = nullptr;
  cuda::check(cudaMalloc(&memory, kArena), "allocating memory");
  memory_ = static_cast<std::byte*>(memory);
  arena = this;
}

Arena::~Arena() {
  arena = nullptr;
  cudaFree(memory_);
}

std::byte* Arena::take(std::size_t bytes) {
  const std::size_t begin = taken_;
  taken_ += aligned_size(bytes);
  check(taken_ <= kArena, "a rank's memory is large enough for the test");
  ++users_;
  return memory_ + begin;
}

PeerRank::PeerRank(Group& control, int threads)
    : control(control),
      device(open_device("cuda", control.rank())),
      current(*device),
      memory(shares_gpu() ? std::make_unique<Arena>() : nullptr),
      stream(device->make_stream(threads)),
      handle(cuda::handle_of(*stream)) {}

PeerRank::~PeerRank() {
  if (std::uncaught_exceptions() > 0) return;
  try {
    meet_if_shared();
  } catch (const Error&) {  // the world has ended: no kernel waits any more
  }
}

void check_on_gpu(const PeerRank& rank, Group& group, CollectiveCall call, const Shape& shape, std::uint64_t seed, bool in_place,
                  bool shifted) {
  std::vector<Tensor> inputs;
  for (int r = 0; r < group.size(); ++r) inputs.push_back(random_input(call.dtype, shape, r, seed));
  const Tensor& mine = inputs[static_cast<std::size_t>(group.rank())];
  call.dims = shape;
  Tensor out(call.dtype, collective_output_dims(call, group.size()));
  const std::size_t offset = shifted ? bytes(call.dtype, 1) : 0;
  Buffer from(mine.size_bytes()), to(out.size_bytes());
  to.poison(rank.handle);
  cuda::check(cudaMemcpyAsync((in_place ? to : from).at(offset), mine.data(), mine.size_bytes(), cudaMemcpyDefault, rank.handle),
              "copying");
  call.in = (in_place ? to : from).at(offset);
  call.out = to.at(offset);
  call.stream = rank.handle;
  group.run(call);
  rank.stream->wait(Deadline::after(2 * kPatience));
  group.throw_if_failed();
  rank.copy(out.mutable_data(), to.at(offset), out.size_bytes());
  check_output(call, group.rank(), inputs, out);
}

int every_cell(const PeerRank& rank, Group& group, const Shape& shape, std::uint64_t seed) {
  int cells = 0;
  for (const CollectiveInfo& row : collectives())
    for (int axis = 0; axis < static_cast<int>(shape.size()); ++axis)
      for (int concat = 0; concat < (row.kind == Collective::all_to_all ? static_cast<int>(shape.size()) : 1); ++concat) {
        CollectiveCall call = {
            .kind = row.kind, .axis = axis, .split_axis = axis, .concat_axis = concat, .root = axis % group.size(), .shift = 2 * axis - 3};
        for (const DType dtype : row.reduces ? std::span<const DType>(kReducing) : std::span<const DType>(kMoving)) {
          call.dtype = dtype;
          if (!row.reduces) check_on_gpu(rank, group, call, shape, ++seed), ++cells;
          for (const Reduction reduction : kReductions) {
            if (!row.reduces) break;
            call.reduction = reduction;
            check_on_gpu(rank, group, call, shape, ++seed);
            ++cells;
          }
        }
      }
  return cells;
}

}  // namespace tandem::test
