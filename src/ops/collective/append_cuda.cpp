// Append on GPUs, in the order of the stream: copies of what a rank has, and for each distance that rows travel a shift of the group. A
// shift's messages are as long on all ranks, so as the longest at that distance; where a rank has less, the rest is not looked at.
#include <vector>

#include "comm/group.h"
#include "device/cuda/runtime.h"
#include "ops/collective/append_cpu.h"
#include "ops/layout/copy_cuda.h"

namespace tandem::kernels {

extern const KernelDef append, cuda_host;

namespace {

class AppendOnGpus final : public PreparedKernel {
 public:
  explicit AppendOnGpus(const PrepareArgs& args)
      : rows_(args), element_(bits(args.call.operand(0).dtype) / 8), kept_(copy_kept()), added_(copy_added()) {
    for (int distance = 1; distance < rows_.ranks; ++distance) {
      std::int64_t longest = 0;
      for (int rank = distance; rank < rows_.ranks; ++rank) longest = std::max(longest, rows_.moved(rank, rank - distance).count);
      if (rows_.bytes_of(longest) == 0) continue;
      const AppendRows::Rows out = rows_.moved(rows_.rank, rows_.rank - distance), in = rows_.moved(rows_.rank + distance, rows_.rank);
      shifts_.push_back({distance, static_cast<std::int64_t>(rows_.bytes_of(longest)),
                         copy(out.count, {rows_.past, out.begin - rows_.rank * rows_.past}, {out.count, 0}),
                         copy(in.count, {in.count, 0}, {rows_.block, in.begin - rows_.rank * rows_.block})});
      message_bytes_ = std::max(message_bytes_, aligned_size(rows_.bytes_of(longest)));
    }
  }

  std::size_t workspace_bytes() const override { return 2 * message_bytes_; }

  void run(const RunArgs& args) const override {
    const cudaStream_t stream = cuda::handle_of(args.stream);
    std::byte *given = args.workspace, *taken = given + message_bytes_, *out = args.results[0];
    for (const Shift& shift : shifts_) {
      shift.pack.launch(args.operands[0], given, stream);
      const std::int64_t dims[] = {shift.bytes};
      rows_.group->run({.kind = Collective::shift,
                        .dtype = DType::u8,
                        .dims = dims,
                        .shift = -shift.distance,
                        .stream = stream,
                        .in = given,
                        .out = taken,
                        .deadline = args.deadline});
      shift.unpack.launch(taken, out, stream);
    }
    kept_.launch(args.operands[0], out, stream);
    added_.launch(args.operands[1], out, stream);
    clear(out, stream);
  }

 private:
  struct Shift {
    int distance;  // that rows travel to lower ranks
    std::int64_t bytes;
    cuda::StridedCopy pack, unpack;  // of nothing where this rank gives or gets no rows
  };
  struct Place {
    std::int64_t rows, begin;  // of a line, and which of them is the first
  };

  cuda::StridedCopy copy_kept() const {
    const AppendRows::Rows kept = rows_.kept();
    return copy(kept.count, {rows_.past, kept.begin - rows_.rank * rows_.past}, {rows_.block, kept.begin - rows_.rank * rows_.block});
  }
  cuda::StridedCopy copy_added() const {
    const AppendRows::Rows added = rows_.added();
    return copy(added.count, {rows_.fresh, added.begin - rows_.extent}, {rows_.block, added.begin - rows_.rank * rows_.block});
  }

  // So many rows of every line.
  cuda::StridedCopy copy(std::int64_t count, Place from, Place to) const {
    const std::int64_t row = static_cast<std::int64_t>(rows_.row_bytes) / element_;
    return {element_, std::vector<cuda::CopyAxis>{{rows_.lines, from.rows * row, to.rows * row}, {count * row, 1, 1}}, from.begin * row,
            to.begin * row};
  }

  void clear(std::byte* out, cudaStream_t stream) const {
    const auto at = [&](std::int64_t rows) { return static_cast<std::size_t>(rows) * rows_.row_bytes; };
    const std::int64_t padding = rows_.block - rows_.valid();
    if (rows_.bytes_of(padding) == 0) return;
    cuda::check(cudaMemset2DAsync(out + at(rows_.valid()), at(rows_.block), 0, at(padding), static_cast<std::size_t>(rows_.lines), stream),
                "clearing padding");
  }

  AppendRows rows_;
  int element_;
  cuda::StridedCopy kept_, added_;
  std::vector<Shift> shifts_;
  std::size_t message_bytes_ = 0;
};

}  // namespace

extern const KernelDef cuda_append;
const KernelDef cuda_append = {
    .name = "cuda_append",
    .op = "Append",
    .refuse = [](const OpCall& call) { return append.refuse(call); },
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> {
      // A group of the host is where ranks share a GPU, or cannot reach one another's.
      if (args.group && args.group->backend() == "shm") return cuda_host.prepare(args);
      return std::make_unique<AppendOnGpus>(args);
    },
    .sent_bytes = [](const OpCall& call) { return append.sent_bytes(call); },
    .device = "cuda",
};

}  // namespace tandem::kernels
