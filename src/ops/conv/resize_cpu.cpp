// Resize on the CPU: rows of the last dimension, made of the rows of the operand that the tables name.
#include <algorithm>

#include "ops/conv/resize.h"
#include "ops/convert_cpu.h"
#include "ops/half_types_cpu.h"
#include "ops/kernel.h"

namespace tandem::kernels {
namespace {

using namespace resize;

class Resize final : public PreparedKernel {
 public:
  Resize(const Problem& p, int threads) : p_(p), threads_(threads) {
    for (std::size_t d = 0; d + 1 < p_.tables.size(); ++d) lines_out_ *= p_.tables[d].out;
    for (const double w : last().weights) weights_.push_back(static_cast<float>(w));
  }

  std::size_t workspace_bytes() const override { return static_cast<std::size_t>(threads_) * per_thread(); }

  void run(const RunArgs& args) const override {
    if (last().out == 0) return;
    args.pool().split(p_.outer * lines_out_, std::max<std::int64_t>(1, 4096 / last().out),
                      [&](std::int64_t begin, std::int64_t end, int thread) {
                        auto* sums = reinterpret_cast<float*>(args.workspace + static_cast<std::size_t>(thread) * per_thread());
                        for (std::int64_t line = begin; line < end; ++line) make_line(args, line, sums);
                      });
  }

 private:
  const Table& last() const { return p_.tables.back(); }
  std::size_t per_thread() const { return (static_cast<std::size_t>(last().out + last().in) * sizeof(float) + 63) / 64 * 64; }

  // Adds the row at `source` (an index among the lines of the operand), so much of it.
  void add_line(const RunArgs& args, std::int64_t source, float weight, float* sums) const {
    float* row = sums + last().out;
    to_floats(p_.dtype, args.operands[0] + bytes(p_.dtype, source * last().in), row, last().in);
    const std::int64_t taps = last().taps;
    for (std::int64_t o = 0; o < last().out; ++o)
      for (std::int64_t t = o * taps; t < (o + 1) * taps; ++t)
        if (const float w = weights_[static_cast<std::size_t>(t)]; w != 0)
          sums[o] += weight * w * row[last().rows[static_cast<std::size_t>(t)]];
  }

  // All the lines that make this one, dimension by dimension.
  void add_lines(const RunArgs& args, std::size_t d, std::int64_t line, std::int64_t below, std::int64_t source, double weight,
                 float* sums) const {
    if (d + 1 == p_.tables.size()) return add_line(args, source, static_cast<float>(weight), sums);
    const Table& table = p_.tables[d];
    const std::int64_t inner = below / table.out, o = line / inner;
    for (std::int64_t t = o * table.taps; t < (o + 1) * table.taps; ++t) {
      const auto k = static_cast<std::size_t>(t);
      if (table.weights[k] != 0)
        add_lines(args, d + 1, line % inner, inner, source * table.in + table.rows[k], weight * table.weights[k], sums);
    }
  }

  void make_line(const RunArgs& args, std::int64_t line, float* sums) const {
    std::fill_n(sums, last().out, 0.0f);
    add_lines(args, 0, line % lines_out_, lines_out_, line / lines_out_, 1, sums);
    from_floats(p_.dtype, sums, args.results[0] + bytes(p_.dtype, line * last().out), last().out);
  }

  Problem p_;
  int threads_;
  std::int64_t lines_out_ = 1;
  std::vector<float> weights_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (!is_vector_float(call.operand(0).dtype)) return "it resizes f32, f16 and bf16 only";
  if (call.attributes.dims("sizes").empty()) return "nothing is resized";
  return std::nullopt;
}

}  // namespace

extern const KernelDef resize;
const KernelDef resize = {
    .name = "resize",
    .op = "Resize",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> {
      return std::make_unique<Resize>(problem_of(args.call), args.threads);
    },
};

}  // namespace tandem::kernels
