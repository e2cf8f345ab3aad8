#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/convert_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway's order: foreach_target first.
#include "ops/convert_cpu.h"
#include "ops/half_types_cpu.h"
#include "ops/vector_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {

void to_floats_all(DType type, const std::byte* from, float* to, std::int64_t count) {
  with_float_type(type, [&](auto* t) {
    const auto* in = reinterpret_cast<decltype(t)>(const_cast<std::byte*>(from));
    const F32 d;
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
    std::int64_t i = 0;
    for (; i + lanes <= count; i += lanes) store(d, load(d, in + i), to + i);
    if (i < count) store_part(d, load_part(d, in + i, static_cast<std::size_t>(count - i)), to + i, static_cast<std::size_t>(count - i));
  });
}

void from_floats_all(DType type, const float* from, const std::byte* add, std::byte* to, std::int64_t count) {
  with_float_type(type, [&](auto* t) {
    auto* out = reinterpret_cast<decltype(t)>(to);
    const auto* more = reinterpret_cast<decltype(t)>(const_cast<std::byte*>(add));
    const F32 d;
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
    std::int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      const V32 v = load(d, from + i);
      store(d, more ? hn::Add(v, load(d, more + i)) : v, out + i);
    }
    const auto rest = static_cast<std::size_t>(count - i);
    if (rest == 0) return;
    const V32 v = load_part(d, from + i, rest);
    store_part(d, more ? hn::Add(v, load_part(d, more + i, rest)) : v, out + i, rest);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem {
HWY_EXPORT(to_floats_all);
HWY_EXPORT(from_floats_all);

void to_floats(DType type, const std::byte* from, float* to, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(to_floats_all)(type, from, to, count);
}
void from_floats(DType type, const float* from, std::byte* to, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(from_floats_all)(type, from, nullptr, to, count);
}
void from_floats_plus(DType type, const float* from, const std::byte* add, std::byte* to, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(from_floats_all)(type, from, add, to, count);
}

}  // namespace tandem
#endif
