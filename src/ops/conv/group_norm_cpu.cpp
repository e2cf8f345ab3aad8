// GroupNorm on the CPU: a group is one run of memory. Sums in several parts, so that they are vectors and lose fewer digits.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "ops/convert_cpu.h"
#include "ops/half_types_cpu.h"
#include "ops/kernel.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

constexpr std::int64_t kPiece = 2048, kLanes = 16;

// Σ f(x) of a piece into `lanes`.
template <typename F>
void add_piece(const float* x, std::int64_t count, std::array<float, kLanes>& lanes, F f) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (std::int64_t j = 0; j < kLanes; ++j) lanes[static_cast<std::size_t>(j)] += f(x[i + j]);
  for (; i < count; ++i) lanes[0] += f(x[i]);
}

class GroupNorm final : public PreparedKernel {
 public:
  explicit GroupNorm(const OpCall& call)
      : dtype_(call.operand(0).dtype),
        size_(call.attributes.integer("group_size")),
        epsilon_(static_cast<float>(call.attributes.real("epsilon"))) {
    const Shape shape = shape_of(call.operand(0));
    channels_ = shape[1];
    image_ = element_count({shape.begin() + 2, shape.end()});
    groups_ = image_ == 0 ? 0 : shape[0] * channels_ / size_;
  }

  void run(const RunArgs& args) const override {
    args.pool().split(groups_, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t group = begin; group < end; ++group) normalize(args, group);
    });
  }

 private:
  std::size_t at(std::int64_t element) const { return static_cast<std::size_t>(bytes(dtype_, element)); }

  // The mean of f(x) over a group.
  template <typename F>
  float mean_of(const std::byte* x, std::int64_t length, F f) const {
    double sum = 0;
    float piece[kPiece];
    for (std::int64_t i = 0; i < length; i += kPiece) {
      const std::int64_t count = std::min(kPiece, length - i);
      to_floats(dtype_, x + at(i), piece, count);
      std::array<float, kLanes> lanes{};
      add_piece(piece, count, lanes, f);
      sum = std::accumulate(lanes.begin(), lanes.end(), sum);
    }
    return static_cast<float>(sum / static_cast<double>(length));
  }

  void normalize(const RunArgs& args, std::int64_t group) const {
    const std::int64_t length = size_ * image_;
    const std::byte* x = args.operands[0] + at(group * length);
    const float mean = mean_of(x, length, [](float v) { return v; });
    const float variance = mean_of(x, length, [mean](float v) { return (v - mean) * (v - mean); });
    const float factor = 1 / std::sqrt(variance + epsilon_);
    for (std::int64_t c = 0; c < size_; ++c) {
      const std::int64_t channel = group % (channels_ / size_) * size_ + c;
      const float scale = static_cast<float>(load_element(dtype_, args.operands[1], channel));
      const float bias = static_cast<float>(load_element(dtype_, args.operands[2], channel));
      write(x + at(c * image_), args.results[0] + at(group * length + c * image_), mean, factor, scale, bias);
    }
  }

  void write(const std::byte* x, std::byte* y, float mean, float factor, float scale, float bias) const {
    float piece[kPiece];
    for (std::int64_t i = 0; i < image_; i += kPiece) {
      const std::int64_t count = std::min(kPiece, image_ - i);
      to_floats(dtype_, x + at(i), piece, count);
      for (std::int64_t j = 0; j < count; ++j) piece[j] = (piece[j] - mean) * factor * scale + bias;
      from_floats(dtype_, piece, y + at(i), count);
    }
  }

  DType dtype_;
  std::int64_t size_, channels_ = 0, image_ = 0, groups_ = 0;
  float epsilon_;
};

std::optional<std::string> refuse(const OpCall& call) {
  if (!is_vector_float(call.operand(0).dtype)) return "it normalizes f32, f16 and bf16 only";
  return std::nullopt;
}

}  // namespace

extern const KernelDef group_norm;
const KernelDef group_norm = {
    .name = "group_norm",
    .op = "GroupNorm",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<GroupNorm>(args.call); },
    .in_place_operand = 0,
};

}  // namespace tandem::kernels
