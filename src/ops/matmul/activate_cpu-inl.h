// The activations of a product's epilogue, on vectors. Included once per target through foreach_target.h, hence the guard that toggles.
#if defined(TANDEM_ACTIVATE_CPU_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_ACTIVATE_CPU_INL
#undef TANDEM_ACTIVATE_CPU_INL
#else
#define TANDEM_ACTIVATE_CPU_INL
#endif

#include "ops/matmul/problem_cpu.h"
#include "ops/vector_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem {
namespace HWY_NAMESPACE {

HWY_INLINE V32 activate(F32 d, V32 v, Activation activation) {
  switch (activation) {
    case Activation::none: return v;
    case Activation::gelu: return gelu(d, v);
    case Activation::gelu_tanh: return gelu_tanh(d, v);
    case Activation::silu: return silu(d, v);
    case Activation::relu: return positive(d, v);
    case Activation::tanh: return tanh(d, v);
    case Activation::sigmoid: return sigmoid(d, v);
  }
  return v;
}

}  // namespace HWY_NAMESPACE
}  // namespace tandem
HWY_AFTER_NAMESPACE();

#endif
