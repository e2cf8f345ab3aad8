// TopK line by line: what beats the least of the best so far is kept, and now and then all but the best k are let go.
#include <algorithm>
#include <bit>
#include <concepts>
#include <functional>
#include <limits>

#include "core/check.h"
#include "ops/half_types_cpu.h"
#include "ops/kernel.h"
#include "ops/reduce/top_k.h"

namespace tandem::kernels {
namespace {

// Unsigned numbers in the order of the elements: NaN above all, zeros equal.
template <std::unsigned_integral U>
U float_key(U bits, U infinity) {
  constexpr U kSign = U{1} << (std::numeric_limits<U>::digits - 1);
  const U magnitude = bits & ~kSign;
  if (magnitude > infinity) return static_cast<U>(~U{0});
  if (magnitude == 0) return kSign;
  return static_cast<U>(bits & kSign ? ~bits : bits | kSign);
}

std::uint16_t key_of(F16 x) { return float_key<std::uint16_t>(x.bits, 0x7c00); }
std::uint16_t key_of(Bf16 x) { return float_key<std::uint16_t>(x.bits, 0x7f80); }
std::uint32_t key_of(float x) { return float_key<std::uint32_t>(std::bit_cast<std::uint32_t>(x), 0x7f800000); }
std::uint64_t key_of(double x) { return float_key<std::uint64_t>(std::bit_cast<std::uint64_t>(x), 0x7ff0000000000000); }
template <std::integral T>
std::make_unsigned_t<T> key_of(T x) {
  using U = std::make_unsigned_t<T>;
  return static_cast<U>(static_cast<U>(x) ^ (std::is_signed_v<T> ? U{1} << (std::numeric_limits<U>::digits - 1) : U{0}));
}

// An element of a line; what comes first in the result is greater.
struct Candidate {
  std::uint64_t key, order;  // the complement of the index: of equal elements the first is greater
  auto operator<=>(const Candidate&) const = default;
};

// Candidates that are held before all but k are let go.
std::int64_t room_of(const TopKView& v) { return std::min(v.extent, v.k + std::max<std::int64_t>(v.k, 256)); }

// The best k of a line, in order, at the front of `held`, which has room for room_of(v).
template <typename T>
void select_line(const TopKView& v, const T* x, Candidate* held) {
  const std::int64_t room = room_of(v);
  std::int64_t count = 0;
  Candidate least{};
  for (std::int64_t j = 0; j < v.extent; ++j) {
    const auto key = key_of(x[j * v.inner]);
    const Candidate candidate{static_cast<std::uint64_t>(v.largest ? key : static_cast<decltype(key)>(~key)),
                              ~static_cast<std::uint64_t>(j)};
    if (candidate < least) continue;
    held[count++] = candidate;
    if (count < room) continue;
    std::nth_element(held, held + v.k - 1, held + count, std::greater());
    count = v.k;
    least = held[v.k - 1];
  }
  std::partial_sort(held, held + v.k, held + count, std::greater());
}

template <typename T>
void select_lines(const TopKView& v, const RunArgs& args) {
  const auto* x = reinterpret_cast<const T*>(args.operands[0]);
  auto* values = reinterpret_cast<T*>(args.results[0]);
  auto* indices = reinterpret_cast<std::int64_t*>(args.results[1]);
  const std::int64_t grain = std::max<std::int64_t>(1, 4096 / v.extent);
  args.pool().split(v.lines(), grain, [&](std::int64_t begin, std::int64_t end, int thread) {
    Candidate* held = reinterpret_cast<Candidate*>(args.workspace) + thread * room_of(v);
    for (std::int64_t line = begin; line < end; ++line) {
      const T* from = x + v.first(line);
      select_line(v, from, held);
      for (std::int64_t i = 0, to = v.first_result(line); i < v.k; ++i, to += v.inner) {
        indices[to] = static_cast<std::int64_t>(~held[i].order);
        values[to] = from[indices[to] * v.inner];
      }
    }
  });
}

class TopK final : public PreparedKernel {
 public:
  TopK(const OpCall& call, int threads) : view_(top_k_view(call)), threads_(threads) {}

  std::size_t workspace_bytes() const override { return static_cast<std::size_t>(threads_ * room_of(view_)) * sizeof(Candidate); }

  void run(const RunArgs& args) const override {
    if (view_.k == 0) return;
    switch (view_.dtype) {
      case DType::f16: return select_lines<F16>(view_, args);
      case DType::bf16: return select_lines<Bf16>(view_, args);
      case DType::f32: return select_lines<float>(view_, args);
      case DType::f64: return select_lines<double>(view_, args);
      case DType::i8: return select_lines<std::int8_t>(view_, args);
      case DType::u8: return select_lines<std::uint8_t>(view_, args);
      case DType::i16: return select_lines<std::int16_t>(view_, args);
      case DType::u16: return select_lines<std::uint16_t>(view_, args);
      case DType::i32: return select_lines<std::int32_t>(view_, args);
      case DType::u32: return select_lines<std::uint32_t>(view_, args);
      case DType::i64: return select_lines<std::int64_t>(view_, args);
      default: return select_lines<std::uint64_t>(view_, args);
    }
  }

 private:
  TopKView view_;
  int threads_;
};

std::optional<std::string> refuse(const OpCall& call) {
  const DType dtype = call.operand(0).dtype;
  if (bits(dtype) < 8 || dtype == DType::f8e4m3 || dtype == DType::f8e5m2) return fmt::format("it compares no {}", to_string(dtype));
  return std::nullopt;
}

}  // namespace

extern const KernelDef top_k;
const KernelDef top_k = {
    .name = "top_k",
    .op = "TopK",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<TopK>(args.call, args.threads); },
};

}  // namespace tandem::kernels
