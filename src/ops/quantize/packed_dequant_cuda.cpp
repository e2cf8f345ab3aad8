// DequantMatMul of up to 16 rows of 16-bit floats with a weight: its codes are kept a second time, in the order in which tensor cores take
// them, with scales of blocks beside them, and read at the speed of memory.
#include "ops/quantize/packed_dequant_cuda.h"

#include "core/check.h"
#include "core/numeric.h"
#include "device/cuda/runtime.h"
#include "ops/matmul/packed_tiles_cuda.h"
#include "ops/quantize/dequant_problem.h"
#include "ops/start_cuda.h"

namespace tandem::kernels {

extern const KernelDef cuda_dequant_matmul;

namespace {

// How many of the products of such codes share scales, from types alone.
struct Blocks {
  int groups = 0;  // with scales of their own in a chunk; 0: scales follow the sums
  std::int64_t chunks_of_group = 1;
};

TileFormat format_of(DType codes) {
  const bool nibbles = bits(codes) == 4, is_signed = codes == DType::i8 || codes == DType::i4;
  return {.bits = bits(codes), .chunk = nibbles ? 128 : 64, .flip = !is_signed ? 0u : nibbles ? 0x8u : 0x80u};
}

// Nothing where scales change inside of what is summed at once.
std::optional<Blocks> blocks_of(DType codes, std::int64_t k, std::int64_t block) {
  const int chunk = format_of(codes).chunk;
  if (block == 0 || block >= k) return Blocks{};
  if (block % chunk == 0) return Blocks{1, block / chunk};
  if (block % cuda::kUnitDepth == 0 && chunk % block == 0) return Blocks{static_cast<int>(chunk / block), 1};
  return std::nullopt;
}

Blocks blocks_of(const DequantProblem& p) { return blocks_of(p.b, p.k, p.block).value_or(Blocks{}); }

// Groups that all chunks have, the last ones perhaps past k.
std::int64_t groups_of(const DequantProblem& p, const Blocks& blocks) {
  const std::int64_t chunks = format_of(p.b).chunks(p.k);
  return blocks.groups == 1 ? ceil_divide(chunks, blocks.chunks_of_group) : chunks * blocks.groups;
}

std::span<const int> tiles_for(const Blocks& blocks) {
  return blocks.groups == 0 ? std::span<const int>(cuda::kDequantTiles) : std::span<const int>(cuda::kDequantBlockTiles);
}

class PackedDequantMatMul final : public PreparedKernel {
 public:
  PackedDequantMatMul(const PrepareArgs& args, const DequantProblem& p)
      : p_(p),
        blocks_(blocks_of(p)),
        b_(static_cast<const PackedTiles&>(*args.packed)),
        product_(*args.device, format_of(p.b), tiles_for(blocks_), {p.m, p.k, p.n, p.activation, p.bias, p.residual}),
        form_{p.type, p.b, blocks_.groups, product_.tiles()} {
    cuda::check(cuda::prepare_packed_dequant(form_), "preparing a product of few rows");
  }

  std::size_t workspace_bytes() const override { return product_.workspace_bytes(); }

  void run(const RunArgs& args) const override {
    cuda::PackedRows rows = product_.rows(args, b_);
    rows.offset = static_cast<int>(format_of(p_.b).flip);
    if (blocks_.groups == 0) {
      rows.scale = args.operands[kDequantScale];
      rows.scale_type = p_.scale;
      rows.scale_column = static_cast<int>(p_.scale_column);
    } else {
      rows.block_scales = b_.scales_in(args);
      rows.scale_groups = static_cast<int>(groups_of(p_, blocks_));
      rows.chunks_of_group = static_cast<int>(blocks_.chunks_of_group);
    }
    cuda::launch_packed_dequant(form_, rows, cuda::start_of(args));
    cuda::check_launch("a product of few rows");
  }

 private:
  DequantProblem p_;
  Blocks blocks_;
  const PackedTiles& b_;
  PackedProduct product_;
  cuda::PackedDequant form_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (auto reason = dequant_refusal(call)) return reason;
  const Type &a = call.operand(kDequantA), &b = call.operand(kDequantB);
  if (a.dtype != DType::f16 && a.dtype != DType::bf16) return "it multiplies f16 and bf16 only";
  if (b.dtype == DType::f8e5m2) return "it reads no f8e5m2";
  if (call.has_operand(kDequantZero)) return "it has no zero points";
  const auto rows = known_rows(a);
  if (!rows || *rows < 1 || *rows > cuda::kPackedRows) return "its first operand is not known to be 1 to 16 rows";
  if (*rows == 1 && bits(b.dtype) == 8) return "one row is multiplied sooner with 8-bit codes as they came";
  if (!b.dims[0].is_constant() || !b.dims[1].is_constant() || !a.dims.back().is_constant())
    return "its second operand is not of known extents";
  const std::int64_t k = b.dims[0].constant(), n = b.dims[1].constant();
  if (k == 0 || n == 0 || k > cuda::kPackedMost || n > cuda::kPackedMost)
    return "its second operand is empty, or too large for its numbers";
  if (!blocks_of(b.dtype, k, call.attributes.integer("block_size")))
    return "scales change inside of 32 rows of its second operand, or at uneven distances";
  return std::nullopt;
}

bool packs_operand(const OpCall& call, std::size_t operand) {
  const Type& b = call.operand(kDequantB);
  if (operand != kDequantScale) return operand == kDequantB;
  const auto blocks = blocks_of(b.dtype, b.dims[0].constant(), call.attributes.integer("block_size"));
  return blocks && blocks->groups != 0;
}

std::size_t scale_bytes(const DequantProblem& p, const Blocks& blocks) {
  if (blocks.groups == 0) return 0;
  return static_cast<std::size_t>(ceil_divide(p.n, cuda::kScaleColumns) * groups_of(p, blocks) * cuda::kScaleColumns) * sizeof(float);
}

// Scales of blocks are packed too, so that these must be weights as well.
std::size_t packed_bytes(const OpCall& call, std::span<const std::byte* const> weights) {
  const auto is_weight = [&](std::size_t i) { return i < weights.size() && weights[i]; };
  if (!is_weight(kDequantB) || (packs_operand(call, kDequantScale) && !is_weight(kDequantScale))) return 0;
  const DequantProblem p = dequant_problem(call);
  return tile_bytes(format_of(p.b), p.k, p.n) + scale_bytes(p, blocks_of(p));
}

std::unique_ptr<Packed> pack(const OpCall& call, std::span<const std::byte* const> weights) {
  if (packed_bytes(call, weights) == 0) return nullptr;
  const DequantProblem p = dequant_problem(call);
  const Blocks blocks = blocks_of(p);
  auto packed = std::make_unique<PackedTiles>(weights[kDequantB], format_of(p.b), p.k, p.n, scale_bytes(p, blocks));
  if (blocks.groups != 0) {
    cuda::launch_pack_scales(
        {weights[kDequantScale], packed->scales(), p.scale_row, p.scale_column, p.blocks(), groups_of(p, blocks), p.n, p.scale},
        cudaStreamPerThread);
    cuda::check_launch("storing scales");
    cuda::finish(cudaStreamPerThread, "storing scales");
  }
  return packed;
}

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  if (!args.packed) return cuda_dequant_matmul.prepare(args);
  return std::make_unique<PackedDequantMatMul>(args, dequant_problem(args.call));
}

}  // namespace

extern const KernelDef cuda_packed_dequant_matmul;
const KernelDef cuda_packed_dequant_matmul = {
    .name = "cuda_packed_dequant_matmul",
    .op = "DequantMatMul",
    .refuse = refuse,
    .prepare = prepare,
    .pack = pack,
    .packed_bytes = packed_bytes,
    .packs_operand = packs_operand,
    .rank = -1,
    .device = "cuda",
    .dependent = true,
    .reads_early = packs_operand,
};

}  // namespace tandem::kernels
