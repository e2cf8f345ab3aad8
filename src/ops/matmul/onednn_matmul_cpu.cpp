// MatMul by oneDNN: one single-threaded primitive per tile, tiles spread over our own threads.
#include <algorithm>
#include <unordered_map>

#include "core/check.h"
#include "core/numeric.h"
#include "ops/convert_cpu.h"
#include "ops/kernel.h"
#include "ops/matmul/activate_cpu.h"
#include "ops/matmul/highway_matmul_cpu.h"
#include "ops/matmul/problem_cpu.h"
#include "ops/onednn_shim.h"

namespace tandem::kernels {
namespace {

using dnnl::memory;
using onednn::engine;
using onednn::keep_single_threaded;

constexpr std::int64_t kColumnBlock = 64;         // oneDNN packs weights in panels of this many columns
constexpr std::int64_t kTileRows = 256;           // more leave the second-level cache, which costs a sixth on some processors
constexpr std::int64_t kTileFloats = 192 * 1024;  // of a result that is finished while it is in the cache

bool has_native_bf16() { return dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core_bf16; }

// What oneDNN computes in: f16, and bf16 on CPUs without such instructions, are converted to f32 tile by tile.
DType compute_type(const OpCall& call) {
  // The activation comes before the sum, and oneDNN's ReLU, which makes NaN zero, is not used.
  const bool can_be_inside = !call.has_operand(kMatMulResidual) || call.attributes.text("activation") != "relu";
  return call.operand(kMatMulB).dtype == DType::bf16 && can_be_inside && has_native_bf16() ? DType::bf16 : DType::f32;
}

memory::desc plain_matrix(std::int64_t rows, std::int64_t columns, DType type) {
  return {{rows, columns}, type == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32, memory::format_tag::ab};
}

memory::desc any_matrix(std::int64_t rows, std::int64_t columns, DType type) {
  return {{rows, columns}, type == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32, memory::format_tag::any};
}

dnnl::primitive_attr attributes(Activation activation, const memory::desc* residual) {
  using dnnl::algorithm;
  dnnl::post_ops ops;
  switch (activation) {
    case Activation::none:
    case Activation::relu: break;  // oneDNN's makes NaN zero: ours follows
    case Activation::gelu: onednn::append_eltwise(ops, algorithm::eltwise_gelu_erf, 0); break;
    case Activation::gelu_tanh: onednn::append_eltwise(ops, algorithm::eltwise_gelu_tanh, 0); break;
    case Activation::silu: onednn::append_eltwise(ops, algorithm::eltwise_swish, 1); break;
    case Activation::tanh: onednn::append_eltwise(ops, algorithm::eltwise_tanh, 0); break;
    case Activation::sigmoid: onednn::append_eltwise(ops, algorithm::eltwise_logistic, 0); break;
  }
  if (residual) ops.append_binary(algorithm::binary_add, *residual);
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attr.set_post_ops(ops);
  return attr;
}

struct PackedWeights final : Packed {
  memory weights;
  std::size_t size_bytes() const override { return weights.get_desc().get_size(); }
};

// One primitive with its argument list, used by one thread at a time.
struct Tile {
  dnnl::matmul primitive;
  std::unordered_map<int, memory> arguments;
};

// One way to cut: `rows` x `columns` of the result, columns starting at `first_column`. One Tile per thread.
struct TileKind {
  std::int64_t rows = 0, first_column = 0, columns = 0;
  std::vector<Tile> per_thread;
};

class OneDnnMatMul final : public PreparedKernel {
 public:
  explicit OneDnnMatMul(const PrepareArgs& args)
      : p_(matmul_problem(args.call)), threads_(args.threads), packed_(dynamic_cast<const PackedWeights*>(args.packed)) {
    keep_single_threaded();
    type_ = compute_type(args.call);
    converts_ = type_ != p_.dtype;
    // Our activation and sum take half the time of oneDNN's, but see results only once they are rounded to the type they are stored in.
    finishes_ = type_ == DType::f32 && (p_.residual || p_.activation != Activation::none);
    rectifies_ = p_.activation == Activation::relu && !finishes_;  // rounding first changes nothing
    cut();
    // The scratchpad's size is known once the primitives are.
    const std::int64_t last_rows = p_.m % tile_rows_;
    for (std::int64_t column = 0; column < p_.n; column += tile_columns_) {
      const std::int64_t columns = std::min(tile_columns_, p_.n - column);
      if (p_.m >= tile_rows_) add_kind(tile_rows_, column, columns);
      if (last_rows != 0) add_kind(last_rows, column, columns);
    }
    lay_out_workspace();
  }

  std::size_t workspace_bytes() const override { return static_cast<std::size_t>(threads_) * per_thread_bytes_; }

  void run(const RunArgs& args) const override {
    keep_single_threaded();
    const std::int64_t row_tiles = ceil_divide(p_.m, tile_rows_), column_tiles = ceil_divide(p_.n, tile_columns_);
    const auto products = static_cast<std::int64_t>(p_.products.size());
    args.pool().each(products * row_tiles * column_tiles, [&](std::int64_t task, int thread) {
      keep_single_threaded();
      const std::int64_t column = task % column_tiles * tile_columns_;
      const std::int64_t row = task / column_tiles % row_tiles * tile_rows_;
      run_tile(args, p_.products[static_cast<std::size_t>(task / column_tiles / row_tiles)], row, column, thread);
    });
  }

 private:
  // Rows first; columns only where there are too few rows to go round (decoding).
  void cut() {
    const auto products = static_cast<std::int64_t>(p_.products.size());
    tile_columns_ = p_.n;
    tile_rows_ = p_.m;
    if (products < threads_) {
      const std::int64_t share = ceil_divide(p_.m, threads_);
      if (share >= 8 || !packed_) tile_rows_ = std::min(p_.m, round_up(share, 8));
      else tile_columns_ = panel_columns();
    }
    if (converts_) tile_rows_ = std::min<std::int64_t>(tile_rows_, 64);  // so that the f32 copies stay in the cache
    tile_rows_ = std::min(tile_rows_, kTileRows);
    if (finishes_) tile_rows_ = std::min(tile_rows_, round_up(ceil_divide(kTileFloats, tile_columns_), 8));
    // oneDNN's fast kernels write dense results only.
    direct_ = !converts_ && (tile_columns_ == p_.n || p_.m == 1);
  }

  // Columns per thread; all of them unless the packed weights are panels one after the other, so that some of them are
  // packed weights too. (oneDNN 2.6 ignores the offset of a descriptor, so a pointer must do.)
  std::int64_t panel_columns() const {
    if (p_.n % kColumnBlock != 0) return p_.n;
    const std::int64_t columns = std::min(p_.n, round_up(ceil_divide(p_.n, threads_), kColumnBlock));
    const std::size_t all = packed_->weights.get_desc().get_size();
    const std::size_t some = weights_desc(columns).get_size();
    return some * static_cast<std::size_t>(p_.n) == all * static_cast<std::size_t>(columns) ? columns : p_.n;
  }

  memory::desc weights_desc(std::int64_t columns) const {
    if (!packed_) return plain_matrix(p_.k, p_.n, type_);
    const memory::desc all = packed_->weights.get_desc();
    return columns == p_.n ? all : all.submemory_desc({p_.k, columns}, {0, 0});
  }

  void* packed_panel(std::int64_t column) const {
    const std::size_t panel = packed_->weights.get_desc().get_size() / static_cast<std::size_t>(p_.n) * static_cast<std::size_t>(column);
    return static_cast<std::byte*>(packed_->weights.get_data_handle()) + (column == 0 ? 0 : panel);
  }

  void add_kind(std::int64_t rows, std::int64_t column, std::int64_t columns) {
    const memory::desc a = plain_matrix(rows, p_.k, type_), c = plain_matrix(rows, columns, type_);
    const memory::desc b = weights_desc(columns);
    const memory::desc bias = p_.bias ? plain_matrix(1, columns, type_) : memory::desc();
    const dnnl::primitive_attr attr = attributes(finishes_ ? Activation::none : p_.activation, residual_inside() ? &c : nullptr);
    const auto desc = onednn::matmul_desc(engine(), a, b, bias, c, attr);
    scratch_bytes_ = std::max(scratch_bytes_, desc.scratchpad_desc().get_size());
    const dnnl::matmul primitive(desc);
    TileKind kind{rows, column, columns, {}};
    for (int i = 0; i < threads_; ++i) {
      Tile tile{primitive, {}};
      tile.arguments.emplace(DNNL_ARG_SRC, memory(a, engine(), nullptr));
      tile.arguments.emplace(DNNL_ARG_WEIGHTS, memory(b, engine(), packed_ ? packed_panel(column) : nullptr));
      tile.arguments.emplace(DNNL_ARG_DST, memory(c, engine(), nullptr));
      tile.arguments.emplace(DNNL_ARG_SCRATCHPAD, memory(desc.scratchpad_desc(), engine(), nullptr));
      if (p_.bias) tile.arguments.emplace(DNNL_ARG_BIAS, memory(bias, engine(), nullptr));
      if (residual_inside()) tile.arguments.emplace(residual_argument(), memory(c, engine(), nullptr));
      kind.per_thread.push_back(std::move(tile));
    }
    kinds_.push_back(std::move(kind));
  }

  bool residual_inside() const { return p_.residual && direct_ && !finishes_; }

  int residual_argument() const { return DNNL_ARG_ATTR_MULTIPLE_POST_OP(p_.activation == Activation::none ? 0 : 1) | DNNL_ARG_SRC_1; }

  // Per thread: scratchpad, f32 copies of a, b and bias, the tile of the result.
  void lay_out_workspace() {
    std::size_t at = 0;
    const auto place = [&at](std::size_t bytes) {
      const std::size_t here = at;
      at += (bytes + 63) / 64 * 64;
      return here;
    };
    const auto floats = [](std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); };
    place(scratch_bytes_);
    a_at_ = place(converts_ ? floats(tile_rows_ * p_.k) : 0);
    b_at_ = place(converts_ && !packed_ ? floats(p_.k * p_.n) : 0);
    bias_at_ = place(converts_ && p_.bias ? floats(p_.n) : 0);
    c_at_ = place(direct_ ? 0 : floats(tile_rows_ * tile_columns_));
    per_thread_bytes_ = at;
  }

  const TileKind& kind_of(std::int64_t rows, std::int64_t column) const {
    for (const TileKind& kind : kinds_)
      if (kind.rows == rows && kind.first_column == column) return kind;
    fail(ErrorCode::internal, "no tile of {} rows at column {}", rows, column);
  }

  // `count` elements of `from` as the type oneDNN computes in.
  std::byte* readable(const std::byte* from, std::int64_t count, std::byte* copy) const {
    if (!converts_) return const_cast<std::byte*>(from);
    to_floats(p_.dtype, from, reinterpret_cast<float*>(copy), count);
    return copy;
  }

  void run_tile(const RunArgs& args, const MatMulProblem::Offsets& product, std::int64_t row, std::int64_t column, int thread) const {
    const std::int64_t rows = std::min(tile_rows_, p_.m - row);
    const TileKind& kind = kind_of(rows, column);
    Tile& tile = const_cast<Tile&>(kind.per_thread[static_cast<std::size_t>(thread)]);  // this thread's own
    std::byte* work = args.workspace + static_cast<std::size_t>(thread) * per_thread_bytes_;
    const auto offset = [this](std::int64_t elements) { return static_cast<std::size_t>(bytes(p_.dtype, elements)); };
    const auto set = [&tile](int name, const std::byte* at) { tile.arguments.at(name).set_data_handle(const_cast<std::byte*>(at)); };

    const std::size_t c_offset = offset(product.c + row * p_.n + column);
    set(DNNL_ARG_SCRATCHPAD, work);
    set(DNNL_ARG_SRC, readable(args.operands[kMatMulA] + offset(product.a + row * p_.k), rows * p_.k, work + a_at_));
    if (!packed_) set(DNNL_ARG_WEIGHTS, readable(args.operands[kMatMulB] + offset(product.b), p_.k * p_.n, work + b_at_));
    if (p_.bias) set(DNNL_ARG_BIAS, readable(args.operands[kMatMulBias] + offset(column), kind.columns, work + bias_at_));
    if (residual_inside()) set(residual_argument(), args.operands[kMatMulResidual] + c_offset);
    set(DNNL_ARG_DST, direct_ ? args.results[0] + c_offset : work + c_at_);
    static thread_local dnnl::stream stream(engine());
    tile.primitive.execute(stream, tile.arguments);
    const std::int64_t count = rows * kind.columns;
    auto* c = reinterpret_cast<float*>(direct_ ? args.results[0] + c_offset : work + c_at_);
    if (finishes_ && p_.activation != Activation::none) activate_floats(p_.activation, c, count);
    if (rectifies_) rectify_bf16(direct_ ? args.results[0] + c_offset : work + c_at_, count);
    if (finishes_ && direct_ && p_.residual)
      from_floats_plus(DType::f32, c, args.operands[kMatMulResidual] + c_offset, reinterpret_cast<std::byte*>(c), count);
    if (!direct_) write_back(args, kind, c_offset, work + c_at_);
  }

  void write_back(const RunArgs& args, const TileKind& kind, std::size_t c_offset, const std::byte* c) const {
    const std::size_t line = static_cast<std::size_t>(bytes(type_, kind.columns)), stride = static_cast<std::size_t>(bytes(p_.dtype, p_.n));
    for (std::int64_t i = 0; i < kind.rows; ++i) {
      const std::size_t at = c_offset + static_cast<std::size_t>(i) * stride;
      const std::byte* add = p_.residual ? args.operands[kMatMulResidual] + at : nullptr;
      const std::byte* from = c + static_cast<std::size_t>(i) * line;
      if (type_ == DType::f32) from_floats_plus(p_.dtype, reinterpret_cast<const float*>(from), add, args.results[0] + at, kind.columns);
      else add_bf16(from, add, args.results[0] + at, kind.columns);
    }
  }

  static void rectify_bf16(std::byte* values, std::int64_t count) {
    constexpr std::uint16_t kMinusZero = 0x8000, kMinusInfinity = 0xff80;  // NaN lies beyond
    auto* words = reinterpret_cast<std::uint16_t*>(values);
    for (std::int64_t i = 0; i < count; ++i) words[i] = words[i] > kMinusZero && words[i] <= kMinusInfinity ? 0 : words[i];
  }

  static void add_bf16(const std::byte* from, const std::byte* add, std::byte* to, std::int64_t count) {
    constexpr std::int64_t kBlock = 256;
    float block[kBlock];
    for (std::int64_t i = 0; i < count; i += kBlock) {
      const std::int64_t length = std::min(kBlock, count - i);
      to_floats(DType::bf16, from + 2 * i, block, length);
      from_floats_plus(DType::bf16, block, add ? add + 2 * i : nullptr, to + 2 * i, length);
    }
  }

  MatMulProblem p_;
  int threads_;
  const PackedWeights* packed_;
  DType type_ = DType::f32;
  bool converts_ = false, direct_ = false, finishes_ = false, rectifies_ = false;
  std::int64_t tile_rows_ = 0, tile_columns_ = 0;
  std::vector<TileKind> kinds_;
  std::size_t scratch_bytes_ = 0, a_at_ = 0, b_at_ = 0, bias_at_ = 0, c_at_ = 0, per_thread_bytes_ = 0;
};

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  const MatMulProblem p = matmul_problem(args.call);
  if (p.m == 0 || p.n == 0 || p.k == 0 || p.products.empty()) return prepare_highway_matmul(args);
  return std::make_unique<OneDnnMatMul>(args);
}

// The packed layout does not depend on the rows, so one serves all shapes.
std::unique_ptr<Packed> pack(const OpCall& call, std::span<const std::byte* const> weights) {
  const Type& b = call.operand(kMatMulB);
  if (weights.size() <= kMatMulB || !weights[kMatMulB] || !is_single_matrix(b)) return nullptr;
  keep_single_threaded();
  const std::int64_t k = b.dims[b.dims.size() - 2].constant(), n = b.dims.back().constant();
  if (k == 0 || n == 0) return nullptr;
  constexpr std::int64_t kRows = 256;
  const DType type = compute_type(call);
  const auto desc = onednn::matmul_desc(engine(), plain_matrix(kRows, k, type), any_matrix(k, n, type), memory::desc(),
                                        plain_matrix(kRows, n, type), attributes(Activation::none, nullptr));
  auto packed = std::make_unique<PackedWeights>();
  packed->weights = memory(desc.weights_desc(), engine());
  std::vector<float> floats;
  const std::byte* from = weights[kMatMulB];
  if (type != b.dtype) {
    floats.resize(static_cast<std::size_t>(k * n));
    to_floats(b.dtype, from, floats.data(), k * n);
    from = reinterpret_cast<const std::byte*>(floats.data());
  }
  dnnl::stream stream(engine());
  memory plain(plain_matrix(k, n, type), engine(), const_cast<std::byte*>(from));
  dnnl::reorder(plain, packed->weights).execute(stream, plain, packed->weights);
  stream.wait();
  return packed;
}

bool packs_operand(const OpCall& call, std::size_t operand) { return operand == kMatMulB && is_single_matrix(call.operand(kMatMulB)); }

}  // namespace

extern const KernelDef onednn_matmul;
const KernelDef onednn_matmul = {
    .name = "onednn_matmul",
    .op = "MatMul",
    .refuse = matmul_refusal,
    .prepare = prepare,
    .pack = pack,
    .packs_operand = packs_operand,
    .rank = 0,
    .library = "onednn",
};

}  // namespace tandem::kernels
