// MaxPool and AveragePool on the CPU: an image at a time, in f32, row by row and tap by tap; with the channels last, window by window.
#include <algorithm>
#include <limits>

#include "ops/conv/pool.h"
#include "ops/convert_cpu.h"
#include "ops/half_types_cpu.h"
#include "ops/kernel.h"

namespace tandem::kernels {
namespace {

using namespace pool;

class Pool final : public PreparedKernel {
 public:
  Pool(const Problem& p, int threads) : p_(p), threads_(threads) {
    for (std::int64_t o = 0; o < p_.axes[2].out; ++o) counts_.push_back(static_cast<float>(p_.divisor(p_.axes[2], o)));
  }

  std::size_t workspace_bytes() const override { return static_cast<std::size_t>(threads_) * per_thread(); }

  void run(const RunArgs& args) const override {
    if (p_.out_count() * p_.channels == 0) return;
    args.pool().split(p_.images, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
      auto* work = reinterpret_cast<float*>(args.workspace + static_cast<std::size_t>(thread) * per_thread());
      for (std::int64_t image = begin; image < end; ++image) {
        const std::byte* from = args.operands[0] + bytes(p_.dtype, image * in_image());
        std::byte* to = args.results[0] + bytes(p_.dtype, image * out_image());
        if (p_.dtype == DType::f32) {
          pool_image(reinterpret_cast<const float*>(from), reinterpret_cast<float*>(to));
          continue;
        }
        to_floats(p_.dtype, from, work, in_image());
        pool_image(work, work + in_image());
        from_floats(p_.dtype, work + in_image(), to, out_image());
      }
    });
  }

 private:
  std::int64_t in_image() const { return p_.in_count() * p_.channels; }
  std::int64_t out_image() const { return p_.out_count() * p_.channels; }
  std::size_t per_thread() const {
    return p_.dtype == DType::f32 ? 0 : (static_cast<std::size_t>(in_image() + out_image()) * sizeof(float) + 63) / 64 * 64;
  }

  void pool_image(const float* x, float* y) const {
    if (p_.channels != 1) return pool_channels(x, y);
    const auto& [a, b, c] = p_.axes;
    for (std::int64_t i = 0; i < a.out; ++i)
      for (std::int64_t j = 0; j < b.out; ++j, y += c.out) {
        std::fill_n(y, c.out, p_.max ? -std::numeric_limits<float>::infinity() : 0.0f);
        const auto ti = a.taps(i), tj = b.taps(j);
        for (std::int64_t u = ti.first; u < ti.last; ++u)
          for (std::int64_t v = tj.first; v < tj.last; ++v) add_row(x + (a.row(i, u) * b.in + b.row(j, v)) * c.in, y);
        if (!p_.max) divide(y, static_cast<float>(p_.divisor(a, i) * p_.divisor(b, j)));
      }
  }

  // One row of x into the windows that see it.
  void add_row(const float* x, float* y) const {
    const window::Axis& c = p_.axes[2];
    for (std::int64_t t = 0; t < c.kernel; ++t) {
      const std::int64_t shift = t * c.dilation - c.before;  // window o reads x[o·stride + shift]
      const std::int64_t first = shift >= 0 ? 0 : (-shift + c.stride - 1) / c.stride;
      const std::int64_t last = shift >= c.in ? 0 : std::min(c.out, (c.in - 1 - shift) / c.stride + 1);
      const float* from = x + shift;
      if (!p_.max) {
        for (std::int64_t o = first; o < last; ++o) y[o] += from[o * c.stride];
        continue;
      }
      for (std::int64_t o = first; o < last; ++o) {
        const float value = from[o * c.stride];
        y[o] = y[o] > value || y[o] != y[o] ? y[o] : value;
      }
    }
  }

  void pool_channels(const float* x, float* y) const {
    for (std::int64_t i = 0; i < p_.out_count(); ++i, y += p_.channels) {
      std::fill_n(y, p_.channels, p_.max ? -std::numeric_limits<float>::infinity() : 0.0f);
      p_.each_inside(p_.position(i), [&](std::int64_t tap) {
        const float* from = x + tap * p_.channels;
        for (std::int64_t c = 0; c < p_.channels; ++c) y[c] = p_.max ? (y[c] > from[c] || y[c] != y[c] ? y[c] : from[c]) : y[c] + from[c];
      });
      const auto counted = static_cast<float>(p_.divisor(p_.position(i)));
      if (!p_.max)
        for (std::int64_t c = 0; c < p_.channels; ++c) y[c] /= counted;
    }
  }

  void divide(float* y, float rows) const {
    for (std::int64_t o = 0; o < p_.axes[2].out; ++o) y[o] /= rows * counts_[static_cast<std::size_t>(o)];
  }

  Problem p_;
  int threads_;
  std::vector<float> counts_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (!is_vector_float(call.operand(0).dtype)) return "it pools f32, f16 and bf16 only";
  return std::nullopt;
}

constexpr KernelDef define(std::string_view name, std::string_view op) {
  return {.name = name, .op = op, .refuse = refuse, .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> {
            return std::make_unique<Pool>(problem_of(args.call), args.threads);
          }};
}

}  // namespace

extern const KernelDef average_pool, max_pool;
const KernelDef average_pool = define("average_pool", "AveragePool");
const KernelDef max_pool = define("max_pool", "MaxPool");

}  // namespace tandem::kernels
