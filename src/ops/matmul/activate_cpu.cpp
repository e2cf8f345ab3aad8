#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/matmul/activate_cpu.cpp"
#include "hwy/foreach_target.h"
// Highway's order: foreach_target first.
#include "ops/matmul/activate_cpu-inl.h"
#include "ops/matmul/activate_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {

template <Activation kActivation>
void activate_each(float* values, std::int64_t count) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(activate(d, hn::LoadU(d, values + i), kActivation), d, values + i);
  const auto rest = static_cast<std::size_t>(count - i);
  if (rest) store_part(d, activate(d, load_part(d, values + i, rest), kActivation), values + i, rest);
}

void activate_all(Activation activation, float* values, std::int64_t count) {
  switch (activation) {
    case Activation::none: return;
    case Activation::gelu: return activate_each<Activation::gelu>(values, count);
    case Activation::gelu_tanh: return activate_each<Activation::gelu_tanh>(values, count);
    case Activation::silu: return activate_each<Activation::silu>(values, count);
    case Activation::relu: return activate_each<Activation::relu>(values, count);
    case Activation::tanh: return activate_each<Activation::tanh>(values, count);
    case Activation::sigmoid: return activate_each<Activation::sigmoid>(values, count);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem {
HWY_EXPORT(activate_all);

void activate_floats(Activation activation, float* values, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(activate_all)(activation, values, count);
}

}  // namespace tandem
#endif
